"""The visual-wake-words task, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, knob
from dpsgd_torch.tasks.tiny import VALUES, TinyKind, TinyKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class WakeWordsKnobs(TinyKnobs):
    one_in: int = knob(
        1,
        "of a folder's images, one in so many is read, by its name alone; 10,000 take 1.1 GB",
        rule="count",
        since=3,
    )


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
                "epochs": 6,
                "batch_size": 400,
                "made_up_rows": 5000,
            },
        ),
    )

    def recorded(self, knobs: WakeWordsKnobs, data_dir: Path) -> Task:
        from dpsgd_torch.tasks.wake_words.task import wake_words_task

        return wake_words_task(knobs.norm, data_dir, knobs.one_in)

    def synthetic(self, knobs: WakeWordsKnobs, rows: int, test_rows: int, seed: int) -> Task:
        from dpsgd_torch.tasks.wake_words.task import made_up_figures_task

        return made_up_figures_task(knobs.norm, rows, test_rows, seed)

    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        from dpsgd_torch.tasks.wake_words.model import mobilenet

        return mobilenet(generator, outputs, norm)

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        import torch

        from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures

        return torch.from_numpy(synthetic_figures(count, seed)[0])
