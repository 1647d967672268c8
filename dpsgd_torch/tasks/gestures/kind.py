"""The gesture task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsgd_torch.errors import ExportError
from dpsgd_torch.tasks.base import Knobs, PresetValues, TaskKind, knob, require

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task

LOSSES = ("cross-entropy", "mean-squared")
_OTHER_SEED = 20260103  # synthetic inputs are not the recordings that a run was trained on


@dataclass(frozen=True, kw_only=True)
class GestureKnobs(Knobs):
    loss: str = knob(
        "cross-entropy", "on logits, or on probabilities against one-hot", choices=LOSSES
    )
    transform: str = knob(
        "none",
        "what the model is given: the recording, or statistics of its axes, under a linear head",
        choices=("none", "statistics"),
        since=3,
    )
    directions: int = knob(
        16, "principal directions of made-up motions that are kept of them", rule="count", since=3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.transform == "none" or self.class_labels,
            "loss",
            self.loss,
            "is for the network; drop it, or --transform",
        )
        require(self.directions <= 32, "directions", self.directions, "must be at most 32")

    @property
    def class_labels(self) -> bool:
        return self.loss == "cross-entropy"


def gesture_follow(epsilon: float) -> Mapping[str, Any]:
    """The settings of ``gesture-best`` that follow ε: the learning rate.

    >>> gesture_follow(4.0)
    {'learning_rate': 6.0}
    """
    return {"learning_rate": 3 * min(max(epsilon, 0.1), 10) ** 0.5}


def _refuse_export(knobs: GestureKnobs) -> None:
    if knobs.transform != "none":
        raise ExportError(
            f"transform = {knobs.transform}: its model is a head on statistics that no board "
            "computes; train with --preset gesture"
        )


class Gestures(TaskKind):
    """Motions recorded with a board, or made up."""

    name = "gestures"
    what = "gestures"
    knobs = GestureKnobs
    may_be_synthetic = True
    not_made_up = ""
    presets = (
        PresetValues(
            "gesture-notebook",
            "the TinyML notebook: a gesture classifier, batches of one, 300 epochs",
            "The notebook states no ε for its run. 47,700 batches of one recording each, of 159, "
            "cost ε = 6.6447 at δ = 1e-3 (7.4236 by Rényi accounting).",
            values={
                "dataset_size": None,
                "epochs": 300,
                "batch_size": 1,
                "microbatches": 1,
                "clip_norm": 0.01,
                "noise_multiplier": 1.0,
                "delta": 1e-3,
                "learning_rate": 0.1,
                "loss": "mean-squared",
                "checkpoint_every": 5000,
            },
        ),
        PresetValues(
            "gesture",
            "the same data as we would advise: larger batches, at ε = 3",
            values={
                "dataset_size": None,
                "epochs": 100,
                "batch_size": 64,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "delta": 1e-3,
                "learning_rate": 0.5,
            },
        ),
        PresetValues(
            "gesture-best",
            "the same data, as much accuracy as ε buys: statistics of motion, a linear head",
            values={
                "dataset_size": None,
                "epochs": 16,
                "batch_size": 128,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "delta": 1e-3,
                "rate_schedule": "linear:0",
                "transform": "statistics",
                **gesture_follow(3.0),
            },
            follow=gesture_follow,
            chosen="Settings (statistics, directions, batch, passes, learning rate) were chosen "
            "on made-up motions alone: six tasks of five gestures drawn at random.",
        ),
    )

    def load(self, knobs: GestureKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.gestures.task import gesture_task

        directions = None if knobs.transform == "none" else knobs.directions
        return gesture_task(data_dir, knobs.loss, partial, directions)

    def made_up(self, knobs: GestureKnobs, rows: int, test_rows: int) -> Task:
        from dpsgd_torch.tasks.gestures.task import made_up_gesture_task

        directions = None if knobs.transform == "none" else knobs.directions
        return made_up_gesture_task(knobs.loss, rows, test_rows, _OTHER_SEED, directions)

    def architecture(self, knobs: GestureKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.gestures.task import gesture_mlp

        _refuse_export(knobs)
        return gesture_mlp(torch.Generator(), len(labels), softmax=not knobs.class_labels)

    def public_inputs(self, knobs: GestureKnobs) -> Callable[[int], torch.Tensor]:
        from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
        from dpsgd_torch.tasks.gestures.task import gesture_inputs

        _refuse_export(knobs)

        def make(count: int) -> torch.Tensor:
            half = count // 2
            motion = synthetic_recordings((half, count - half), _OTHER_SEED).motion
            return gesture_inputs(motion, self.input_range(knobs))

        return make

    def input_range(self, knobs: GestureKnobs) -> tuple[float, float]:
        from dpsgd_torch.tasks.gestures.task import input_range_of

        return input_range_of(knobs.loss)

    def output(self, knobs: GestureKnobs) -> str:
        return "logits" if knobs.class_labels else "probabilities"
