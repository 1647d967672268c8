"""The digits task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsgd_torch.tasks.base import ImageKnobs, PresetValues, TaskKind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


def digits_follow(epsilon: float) -> Mapping[str, Any]:
    """The settings of ``digits-best`` that follow ε: the learning rate, 2 ε.

    >>> digits_follow(4.0)
    {'learning_rate': 8.0}
    """
    return {"learning_rate": 2 * min(max(epsilon, 0.1), 10)}


class Digits(TaskKind):
    """scikit-learn's bundled 8×8 digits."""

    name = "digits"
    what = "8×8 digits"
    knobs = ImageKnobs
    not_made_up = ""
    presets = (
        PresetValues(
            "digits",
            "scikit-learn's 8×8 digits: offline, in seconds, at ε = 3",
            values={
                "dataset_size": 1437,
                "epochs": 30,
                "batch_size": 128,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "learning_rate": 1.0,
            },
        ),
        PresetValues(
            "digits-best",
            "the same digits, as much accuracy as ε buys: a head that learnt made-up digits first",
            values={
                "dataset_size": 1437,
                "epochs": 12,
                "batch_size": 718,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "rate_schedule": "linear:0",
                "transform": "scattering",
                "pretrained_on": "digits",
                "begun": True,
                "directions": 60,
                "ridge": 0.1,
                "scales": 1,
                **digits_follow(3.0),
            },
            follow=digits_follow,
            chosen="The rule of the learning rate is what made-up digits alone say, 1,437 of "
            "another pen in place of these, and directions, λ and scales do as well on those as "
            "any tried; batch and passes were set on such digits, too. Before that, other rates "
            "and some dozen directions, λ and scales had been tried on this data's test images, "
            "which nothing paid for; the rate that had done best there is not the one taken.",
        ),
    )

    def load(self, knobs: ImageKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.digits.task import digits_task
        from dpsgd_torch.tasks.image_features import with_features

        return with_features(digits_task(knobs.dropout), knobs)

    def made_up(self, knobs: ImageKnobs, rows: int, test_rows: int) -> Task:
        from dpsgd_torch.tasks.digits.task import digits_cnn
        from dpsgd_torch.tasks.image_features import made_up_digits_task

        return made_up_digits_task(
            8, rows, test_rows, lambda generator: digits_cnn(generator, knobs.dropout), knobs
        )

    def architecture(self, knobs: ImageKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.digits.task import digits_cnn
        from dpsgd_torch.tasks.image_features import refuse_export

        refuse_export(knobs)
        return digits_cnn(torch.Generator(), knobs.dropout)

    def public_inputs(self, knobs: ImageKnobs) -> Callable[[int], torch.Tensor]:
        from dpsgd_torch.tasks.image_features import refuse_export
        from dpsgd_torch.tasks.strokes import stroke_images

        refuse_export(knobs)
        return lambda count: stroke_images(count, size=8)
