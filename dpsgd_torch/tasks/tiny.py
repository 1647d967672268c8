"""Knobs that the four networks of MLPerf Tiny have in common; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpsgd_torch.tasks.base import Knobs, knob

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
