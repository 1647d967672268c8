"""Recordings as text, each row known by its seed."""

import numpy as np

from dpsgd_torch.tasks.gestures.files import SAMPLES
from dpsgd_torch.tasks.gestures.lines import AXES

HEADER = ",".join(AXES)


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, [[0.5] * 3 + [100.0] * 3], (count, 6))
    return [",".join(f"{value:.3f}" for value in row) for row in values]


def text(recordings=3, seed=0, end="\n", header=HEADER):
    """A blank line stands between recordings, as the usual sketch prints it."""
    blocks = [end.join(rows(SAMPLES, seed * 100 + i)) for i in range(recordings)]
    return header + end + (end + end).join(blocks) + end


def another(seed, count=SAMPLES):
    """One more recording, after what is there."""
    return "\n" + "\n".join(rows(count, seed)) + "\n"


def motion(*seeds):
    """(recordings, 119, 6) of the numbers that are written."""
    return np.array(
        [[[float(cell) for cell in row.split(",")] for row in rows(SAMPLES, s)] for s in seeds]
    )


def written(folder, recordings, names=("left", "right")):
    """The folder, with a file a gesture."""
    for index, name in enumerate(names):
        blocks = [
            "\n".join(",".join(f"{value:.4f}" for value in row) for row in recording)
            for recording in recordings.motion[recordings.gesture == index]
        ]
        (folder / f"{name}.csv").write_text(HEADER + "\n" + "\n\n".join(blocks) + "\n")
    return folder
