"""Keyword spotting as a task: coefficients of a second of speech in, one of 12 labels out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.tasks.speech.features import RANGE, features
from dpsgd_torch.tasks.speech.files import Clip, read_clip, read_commands
from dpsgd_torch.tasks.speech.model import ds_cnn
from dpsgd_torch.tasks.speech.synthetic import LABELS, Spoken, synthetic_speech
from dpsgd_torch.tasks.task import Pair, Task, accuracy

_AT_ONCE = 256  # sounds
_MADE_UP = (
    "The words were made up by a model of voices, not recorded: nobody's privacy is at stake and "
    "nothing is learnt of how the classifier does on real ones."
)
_RECORDED = (
    "The unit of privacy is one recording unless a speaker is asked for; seconds of background "
    "noise count as recordings. Recordings of validation_list.txt were not read, and those of "
    "testing_list.txt were tested on."
)


def inputs_of(sounds: Iterable[NDArray[np.float32]]) -> torch.Tensor:
    """Seconds of sound → (n, 1, 49, 10) coefficients in [−1, 1); few sounds are held at once."""
    found, waiting = [], []
    for sound in sounds:
        waiting.append(sound)
        if len(waiting) == _AT_ONCE:
            found.append(features(np.stack(waiting)))
            waiting = []
    if waiting:
        found.append(features(np.stack(waiting)))
    return torch.from_numpy(np.concatenate(found)).unsqueeze(1)


def made_up_speech_task(norm: str, rows: int, test_rows: int, seed: int) -> Task:
    """The task on so many made-up words; who trains is not tested on."""
    train, test = synthetic_speech(rows, seed), synthetic_speech(test_rows, seed + 1)
    return _task(
        norm, *(_pair(part) for part in (train, test)), speaker=train.speaker, synthetic=True
    )


def speech_task(norm: str, data_dir: Path, unknown_one_in: int) -> Task:
    """The task on Speech Commands."""
    train, test = read_commands(data_dir, unknown_one_in)
    _, speaker = np.unique([clip.speaker for clip in train], return_inverse=True)
    return _task(norm, *(_read(part) for part in (train, test)), speaker=speaker, synthetic=False)


def _task(
    norm: str, train: Pair, test: Pair, *, speaker: NDArray[np.int64], synthetic: bool
) -> Task:
    return Task(
        train=train,
        test=test,
        make_model=lambda generator: ds_cnn(generator, len(LABELS), norm),
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": accuracy},
        labels=LABELS,
        input_range=RANGE,
        synthetic=synthetic,
        note=_MADE_UP if synthetic else _RECORDED,
        units={"speaker": torch.from_numpy(speaker.astype(np.int64))},
    )


def _pair(spoken: Spoken) -> Pair:
    return inputs_of(spoken.sound), torch.from_numpy(spoken.label)


def _read(clips: list[Clip]) -> Pair:
    labels = torch.tensor([clip.label for clip in clips])
    return inputs_of(read_clip(clip) for clip in clips), labels
