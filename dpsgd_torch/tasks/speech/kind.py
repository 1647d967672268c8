"""The keyword-spotting task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, TaskKind, knob
from dpsgd_torch.tasks.tiny import MADE_UP_SEED, OTHER_SEED, PUBLIC_SEED, VALUES, TinyKnobs

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


class Speech(TaskKind):
    """Speech Commands, or made-up words."""

    name = "speech"
    what = "spoken keywords"
    knobs = SpeechKnobs
    may_be_synthetic = True
    not_made_up = ""
    calibration = "improved"  # deep: rounding of a range's margin adds up, layer after layer
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
            },
            chosen="The learning rate was chosen by three runs on made-up words of another seed "
            "than those that are trained and tested on.",
        ),
    )

    def load(self, knobs: SpeechKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.speech.task import made_up_speech_task, speech_task

        if data_dir:
            return speech_task(knobs.norm, data_dir, knobs.unknown_one_in)
        rows = knobs.made_up_rows
        return made_up_speech_task(knobs.norm, rows, knobs.made_up_test_rows, MADE_UP_SEED)

    def made_up(self, knobs: SpeechKnobs, rows: int, test_rows: int) -> Task:
        from dpsgd_torch.tasks.speech.task import made_up_speech_task

        return made_up_speech_task(knobs.norm, rows, test_rows, OTHER_SEED)

    def architecture(self, knobs: SpeechKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.speech.model import ds_cnn

        return ds_cnn(torch.Generator(), len(labels), knobs.norm)

    def public_inputs(self, knobs: SpeechKnobs) -> Callable[[int], torch.Tensor]:
        from dpsgd_torch.tasks.speech.synthetic import synthetic_speech
        from dpsgd_torch.tasks.speech.task import inputs_of

        return lambda count: inputs_of(synthetic_speech(count, PUBLIC_SEED).sound)

    def input_range(self, knobs: SpeechKnobs) -> tuple[float, float]:
        return self.frontend(knobs).input_range

    def frontend(self, knobs: SpeechKnobs) -> Frontend:
        from dpsgd_torch.features.sound import KEYWORDS

        return KEYWORDS
