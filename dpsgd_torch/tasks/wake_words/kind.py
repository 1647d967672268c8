"""The visual-wake-words task, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues
from dpsgd_torch.tasks.tiny import VALUES, TinyKind
from dpsgd_torch.tasks.wake_words.knobs import WakeWordsKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class WakeWords(TinyKind):
    """Images with and without a person, or made-up figures."""

    name = "wake-words"
    what = "visual wake words"
    knobs = WakeWordsKnobs
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

    def recorded(self, knobs: WakeWordsKnobs, data_dir: Path) -> Task:
        from dpsgd_torch.tasks.wake_words.task import wake_words_task

        return wake_words_task(knobs, data_dir)

    def synthetic(self, knobs: WakeWordsKnobs, rows: int, test_rows: int, seed: int) -> Task:
        from dpsgd_torch.tasks.wake_words.task import made_up_figures_task

        return made_up_figures_task(knobs, rows, test_rows, seed)

    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        from dpsgd_torch.tasks.wake_words.model import mobilenet

        return mobilenet(generator, outputs, norm)

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        import torch

        from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures

        return torch.from_numpy(synthetic_figures(count, seed)[0])
