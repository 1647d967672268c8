"""The keyword-spotting task, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, knob
from dpsgd_torch.tasks.tiny import VALUES, TinyKind, TinyKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.features.sound import Frontend
    from dpsgd_torch.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class SpeechKnobs(TinyKnobs):
    unknown_one_in: int = knob(
        20,
        "of recordings of other words, one in so many is read, by its name alone",
        rule="count",
        since=3,
    )


class Speech(TinyKind):
    """Speech Commands, or made-up words."""

    name = "speech"
    what = "spoken keywords"
    knobs = SpeechKnobs
    units = ("speaker",)
    presets = (
        PresetValues(
            "keyword-spotting",
            "MLPerf Tiny's DS-CNN on Speech Commands, or on made-up words",
            values={
                **VALUES,
                "epochs": 8,
                "batch_size": 500,
                "learning_rate": 0.02,
                "made_up_rows": 3000,
                "norm": "standardized",
            },
            chosen="The learning rate was chosen by three runs on made-up words of another seed "
            "than those that are trained and tested on.",
        ),
    )

    def recorded(self, knobs: SpeechKnobs, data_dir: Path) -> Task:
        from dpsgd_torch.tasks.speech.task import speech_task

        return speech_task(knobs.norm, data_dir, knobs.unknown_one_in)

    def synthetic(self, knobs: SpeechKnobs, rows: int, test_rows: int, seed: int) -> Task:
        from dpsgd_torch.tasks.speech.task import made_up_speech_task

        return made_up_speech_task(knobs.norm, rows, test_rows, seed)

    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        from dpsgd_torch.tasks.speech.model import ds_cnn

        return ds_cnn(generator, outputs, norm)

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        from dpsgd_torch.tasks.speech.synthetic import synthetic_speech
        from dpsgd_torch.tasks.speech.task import inputs_of

        return inputs_of(synthetic_speech(count, seed).sound)

    def frontend(self, knobs: SpeechKnobs) -> Frontend:
        from dpsgd_torch.features.sound import KEYWORDS

        return KEYWORDS
