"""Visual wake words as a task: is a person in the picture?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from dpsgd_torch.tasks.images import image_task
from dpsgd_torch.tasks.task import Pair, Task
from dpsgd_torch.tasks.wake_words.begun import begun_, prior
from dpsgd_torch.tasks.wake_words.files import LABELS, read_folder
from dpsgd_torch.tasks.wake_words.knobs import WakeWordsKnobs
from dpsgd_torch.tasks.wake_words.model import mobilenet
from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures


def made_up_figures_task(knobs: WakeWordsKnobs, rows: int, test_rows: int, seed: int) -> Task:
    """The task on so many made-up pictures, half of them with a figure."""
    parts = [synthetic_figures(*part) for part in ((rows, seed), (test_rows, seed + 1))]
    train, test = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in parts)
    return _task(knobs, train, test, synthetic=True)


def wake_words_task(knobs: WakeWordsKnobs, data_dir: Path) -> Task:
    """The task on a folder of images; one in five is tested on, chosen by its name."""
    parts = read_folder(data_dir, knobs.one_in)
    train, test = ((torch.from_numpy(x).float() / 255, torch.from_numpy(y)) for x, y in parts)
    return _task(knobs, train, test, synthetic=False)


def _task(knobs: WakeWordsKnobs, train: Pair, test: Pair, *, synthetic: bool) -> Task:
    def make(generator: torch.Generator) -> nn.Module:
        model = mobilenet(generator, len(LABELS), knobs.norm)
        if knobs.pretraining:
            begun_(model, knobs.norm, pictures=knobs.pretraining, frozen=knobs.frozen)
        return model

    task = image_task(train, test, make, LABELS, shift=8, synthetic=synthetic)
    if not knobs.pretraining:
        return task
    return dataclasses.replace(task, prior=prior(frozen=knobs.frozen))
