"""What the tasks of MLPerf Tiny's four networks have in common; loads no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dpsgd_torch.tasks.base import Knobs, TaskKind, knob

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task

NORMS = ("group", "standardized", "none")
MADE_UP_SEED, OTHER_SEED, PUBLIC_SEED = 20260201, 20260203, 20260205
"""Of what is trained on; of what the loss is explained with; of what an export calibrates on.
The next number each is the test rows'."""


VALUES: dict[str, Any] = {
    "dataset_size": None,
    "clip_norm": 1.0,
    "noise_multiplier": None,
    "epsilon": 8.0,
    "optimizer": "adam",
    "learning_rate": 0.003,
    "rate_schedule": "linear:0",
}
"""What the four presets have in common."""


@dataclass(frozen=True, kw_only=True)
class TinyKnobs(Knobs):
    """Those of a small network with its normalisation, on a folder or on made-up records."""

    norm: str = knob(
        "group",
        "in place of batch normalisation, which mixes examples: group normalisation, standardized "
        "weights (which cost a board nothing), or none",
        choices=NORMS,
        since=3,
    )
    made_up_rows: int = knob(
        2000, "made-up records to train on, where there is no --data-dir", rule="count", since=3
    )

    @property
    def made_up_test_rows(self) -> int:
        """A fourth as many to test on, 1,000 at most."""
        return max(10, min(1000, self.made_up_rows // 4))


class TinyKind(TaskKind):
    """A task of a folder's records or of made-up ones, with a small network for it.

    A kind says how each is made; which of them, from which seed, is said here.
    """

    knobs: ClassVar[type[Knobs]] = TinyKnobs
    may_be_synthetic: ClassVar[bool] = True
    not_made_up: ClassVar[str] = ""
    calibration: ClassVar[str] = "improved"
    """Deep: the rounding of each range's margin adds up, layer after layer."""

    @abstractmethod
    def recorded(self, knobs: Any, data_dir: Path) -> Task:
        """The task on a folder's records."""

    @abstractmethod
    def synthetic(self, knobs: Any, rows: int, test_rows: int, seed: int) -> Task:
        """The task on so many made-up records; those to test on are of the next seed."""

    @abstractmethod
    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        """The network, its weights drawn."""

    @abstractmethod
    def inputs(self, count: int, seed: int) -> torch.Tensor:
        """So many made-up inputs."""

    def load(self, knobs: Any, data_dir: Path | None, partial: str) -> Task:
        if data_dir:
            return self.recorded(knobs, data_dir)
        return self.synthetic(knobs, knobs.made_up_rows, knobs.made_up_test_rows, MADE_UP_SEED)

    def made_up(self, knobs: Any, rows: int, test_rows: int) -> Task:
        if self.not_made_up:
            return super().made_up(knobs, rows, test_rows)
        return self.synthetic(knobs, rows, test_rows, OTHER_SEED)

    def architecture(self, knobs: Any, labels: tuple[str, ...]) -> nn.Module:
        import torch

        return self.network(torch.Generator(), len(labels), knobs.norm)

    def public_inputs(self, knobs: Any) -> Callable[[int], torch.Tensor]:
        return lambda count: self.inputs(count, PUBLIC_SEED)
