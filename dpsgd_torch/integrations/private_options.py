"""What ``Private`` takes besides the things that an integration makes itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypedDict

from accountant import Ledger
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.samplers.base import Sampler


class PrivateOptions(TypedDict, total=False):
    """Keywords of ``Private`` that are handed on to it as they are."""

    loss: Loss | None
    units: Any
    rows_per_unit: int | None
    sampler: str | Callable[..., Sampler]
    run_dir: str | os.PathLike[str] | None
    physical_batch_size: int | str
    checkpoint_every: int
    ledger: Ledger | None
    seed: int | None
