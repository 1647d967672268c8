"""Sounds of machines from DCASE's folders: train of usual ones, test of usual and unusual ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.machines.features import LEAST, vectors
from dpsgd_torch.tasks.wav import read_wav, wavs_in

_USUAL, _UNUSUAL = "normal", "anomaly"


@dataclass(frozen=True)
class Vectors:
    """(n, 640) vectors, the recording each is of, and of each recording whether it is unusual."""

    values: NDArray[np.float32]
    recording: NDArray[np.int64]
    unusual: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: list[NDArray[np.float32]], unusual: list[bool]) -> Vectors:
        """From the vectors of each recording."""
        recording = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(np.concatenate(parts), recording, np.array(unusual))


def read_machines(folder: Path, every: int) -> tuple[Vectors, Vectors]:
    """Vectors to train and to test on.

    Args:
        folder: holds train/normal….wav and test/normal….wav, test/anomaly….wav, as one machine
            of DCASE 2020's second task or of ToyADMOS.
        every: frames from one vector to the next.

    Raises:
        DataError: a file that is no such sound or is named otherwise, or a folder without any.
    """
    train = _read(wavs_in(folder / "train"), every)
    if train.unusual.any():
        which = wavs_in(folder / "train")[int(np.argmax(train.unusual))]
        raise DataError(f"{which}: is unusual and to be trained on; move it to test")
    test = _read(wavs_in(folder / "test"), every)
    if test.unusual.all() or not test.unusual.any():
        which_kind = _UNUSUAL if test.unusual.all() else _USUAL
        raise DataError(f"{folder / 'test'}: has {which_kind} recordings alone; needs both")
    return train, test


def _read(paths: list[Path], every: int) -> Vectors:
    parts, unusual = [], []
    for path in paths:
        kind = path.name.split("_")[0]
        if kind not in (_USUAL, _UNUSUAL):
            raise DataError(f"{path}: its name begins with neither {_USUAL}_ nor {_UNUSUAL}_")
        sound = read_wav(path)
        if len(sound) < LEAST:
            raise DataError(
                f"{path}: has {len(sound)} samples; needs {LEAST}, five frames: take it away"
            )
        parts.append(vectors(sound, every))
        unusual.append(kind == _UNUSUAL)
    return Vectors.of(parts, unusual)
