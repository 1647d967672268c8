"""The drug-response task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.base import Knobs, PresetValues, TaskKind, knob

if TYPE_CHECKING:
    from dpsgd_torch.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class DrugResponseKnobs(Knobs):
    hidden: str = knob("", "widths of the tabular network, as in 2048,1048; empty: linear")
    features: str = knob("all", "columns of the tabular data: all, or the notebook's list")
    dropout: float = knob(0.0, "before the inner layers", rule="fraction")
    controls: str = knob(
        "learnt",
        "rows of the vehicle alone: learnt like others, or silent, begun without a mechanism",
        choices=("learnt", "silent"),
        since=3,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.hidden_widths  # noqa: B018
        except ValueError as error:
            raise ConfigError(
                f"hidden = {self.hidden}: must be widths ≥ 1, as in 2048,1048"
            ) from error

    @property
    def class_labels(self) -> bool:
        return False

    @property
    def declared_columns(self) -> str:
        return "" if self.controls == "learnt" else f"controls = {self.controls}"

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        widths = tuple(int(width) for width in self.hidden.split(",") if width.strip())
        if min(widths, default=1) < 1:
            raise ValueError(self.hidden)
        return widths


def response_follow(epsilon: float) -> Mapping[str, Any]:
    """The settings of ``moa-best`` that follow ε: passes, rate, what label frequencies may cost.

    >>> response_follow(1.0)
    {'epochs': 20, 'learning_rate': 0.04, 'frequencies_epsilon': 0.07}
    """
    within = min(max(epsilon, 0.1), 10)
    return {
        "epochs": round(20 * within ** (1 / 3)),
        "learning_rate": 0.04 * within ** (-1 / 7),
        "frequencies_epsilon": 0.07 * within**0.5,
    }


class DrugResponses(TaskKind):
    """A table of gene expression and cell viability, several labels a row."""

    name = "responses"
    what = "drug responses"
    knobs = DrugResponseKnobs
    tabular = True
    may_be_synthetic = True
    not_made_up = "made-up drugs have several labels a row, and no accuracy"
    not_exported = (
        "its layer norms cannot be carried to a microcontroller; load model.safetensors into "
        "dpsgd_torch.tasks.drug_responses.model.response_mlp"
    )
    presets = (
        PresetValues(
            "moa-notebook",
            "drug responses as the tabular notebook trains them: noise and clip norm by step",
            "The notebook states no ε, and its optimizer adds no noise unless each call names one. "
            "Its batch norm mixes examples, which no clip bounds: here a layer norm stands for it. "
            "It gives no values for its two schedules: here noise and clip norm halve along a "
            "line.",
            values={
                "dataset_size": None,
                "epochs": 5,
                "batch_size": 64,
                "microbatches": 64,
                "clip_norm": 1.5,
                "clip_schedule": "linear:0.5",
                "noise_multiplier": 1.3,
                "noise_schedule": "linear:0.5",
                "optimizer": "adam",
                "learning_rate": 1e-3,
                "hidden": "2048,1048",
                "dropout": 0.5,
                "features": "notebook",
                "physical_batch_size": 1024,
                "checkpoint_every": 1000,
            },
        ),
        PresetValues(
            "moa",
            "the same data as we would advise: linear, large batches, private frequencies, at ε = "
            "3",
            values={
                "dataset_size": None,
                "epochs": 40,
                "batch_size": 2048,
                "clip_norm": 0.01,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "frequencies_epsilon": 0.2,
                "validation_bound": 0.1,
                "optimizer": "adam",
                "learning_rate": 2e-2,
                "hidden": "",
                "physical_batch_size": 1024,
                "checkpoint_every": 1000,
            },
        ),
        PresetValues(
            "moa-best",
            "the same with a rate that falls, cheaper frequencies, and controls known to have no "
            "mechanism",
            values={
                "dataset_size": None,
                "batch_size": 2048,
                "clip_norm": 0.01,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "validation_bound": 0.1,
                "optimizer": "adam",
                "rate_schedule": "linear:0",
                "hidden": "",
                "controls": "silent",
                "physical_batch_size": 1024,
                "checkpoint_every": 1000,
                **response_follow(3.0),
            },
            follow=response_follow,
            chosen="Passes, learning rate and its fall, and what label frequencies may cost were "
            "chosen on made-up drug responses alone, of another seed than those that are trained "
            "on without --data-dir; batch, clip norm and model are those of moa, which were "
            "chosen on these.",
        ),
    )

    def load(self, knobs: DrugResponseKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.drug_responses.task import response_task

        return response_task(
            data_dir,
            knobs.hidden_widths,
            knobs.features,
            knobs.dropout,
            silent=knobs.controls == "silent",
        )
