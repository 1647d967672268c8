"""Visual wake words as a task: is a person in the picture?"""

from __future__ import annotations

from pathlib import Path

import torch

from dpsgd_torch.tasks.images import image_task
from dpsgd_torch.tasks.task import Pair, Task
from dpsgd_torch.tasks.wake_words.files import LABELS, read_folder
from dpsgd_torch.tasks.wake_words.model import mobilenet
from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures


def made_up_figures_task(norm: str, rows: int, test_rows: int, seed: int) -> Task:
    """The task on so many made-up pictures, half of them with a figure."""
    parts = [synthetic_figures(*part) for part in ((rows, seed), (test_rows, seed + 1))]
    train, test = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in parts)
    return _task(norm, train, test, synthetic=True)


def wake_words_task(norm: str, data_dir: Path, one_in: int) -> Task:
    """The task on a folder of images; one in five is tested on, chosen by its name."""
    parts = read_folder(data_dir, one_in)
    train, test = ((torch.from_numpy(x).float() / 255, torch.from_numpy(y)) for x, y in parts)
    return _task(norm, train, test, synthetic=False)


def _task(norm: str, train: Pair, test: Pair, *, synthetic: bool) -> Task:
    return image_task(
        train,
        test,
        lambda generator: mobilenet(generator, len(LABELS), norm),
        LABELS,
        shift=8,
        synthetic=synthetic,
    )
