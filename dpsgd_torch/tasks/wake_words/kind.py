"""The visual-wake-words task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, TaskKind
from dpsgd_torch.tasks.tiny import MADE_UP_SEED, OTHER_SEED, PUBLIC_SEED, VALUES
from dpsgd_torch.tasks.wake_words.knobs import WakeWordsKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class WakeWords(TaskKind):
    """Images with and without a person, or made-up figures."""

    name = "wake-words"
    what = "visual wake words"
    knobs = WakeWordsKnobs
    may_be_synthetic = True
    not_made_up = ""
    calibration = "improved"  # deep: rounding of a range's margin adds up, layer after layer
    presets = (
        PresetValues(
            "wake-words",
            "MLPerf Tiny's MobileNetV1 on a folder of images, or on made-up figures",
            values={
                **VALUES,
                "epochs": 5,
                "batch_size": 500,
                "clip_norm": 4.0,
                "learning_rate": 0.1,
                "made_up_rows": 5000,
                "pretraining": 16_000,
                "frozen": True,
            },
            chosen="Clip, learning rate and what is trained were chosen by runs on made-up figures "
            "of another seed than those that are trained and tested on.",
        ),
    )

    def load(self, knobs: WakeWordsKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.wake_words.task import made_up_figures_task, wake_words_task

        if data_dir:
            return wake_words_task(knobs, data_dir)
        rows = knobs.made_up_rows
        return made_up_figures_task(knobs, rows, knobs.made_up_test_rows, MADE_UP_SEED)

    def made_up(self, knobs: WakeWordsKnobs, rows: int, test_rows: int) -> Task:
        from dpsgd_torch.tasks.wake_words.task import made_up_figures_task

        return made_up_figures_task(knobs, rows, test_rows, OTHER_SEED)

    def architecture(self, knobs: WakeWordsKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.wake_words.model import mobilenet

        return mobilenet(torch.Generator(), len(labels), knobs.norm)

    def public_inputs(self, knobs: WakeWordsKnobs) -> Callable[[int], torch.Tensor]:
        import torch

        from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures

        return lambda count: torch.from_numpy(synthetic_figures(count, PUBLIC_SEED)[0])
