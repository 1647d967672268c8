"""What a trainer's arguments must be together, checked before anything is charged."""

from __future__ import annotations

from typing import Any

from accountant.errors import check
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.training.physical_size import AUTO
from dpsgd_torch.training.validation import Validation
from dpsgd_torch.training.world import World


def refuse_unfit(
    privacy: Privacy | None,
    units: Any,
    rows_per_unit: int | None,
    validation: Validation | None,
    *,
    physical_batch_size: int | str,
    checkpoint_every: int,
    seed: int | None,
) -> None:
    """Refuse a promise to units that nobody names, and counts below 1."""
    check(
        physical_batch_size == AUTO
        or (not isinstance(physical_batch_size, str) and physical_batch_size >= 1),
        "physical_batch_size",
        physical_batch_size,
        "must be ≥ 1, or 'auto'",
    )
    check(checkpoint_every >= 1, "checkpoint_every", checkpoint_every, "must be ≥ 1")
    check(seed is None or seed >= 0, "seed", seed, "must be ≥ 0")
    check(
        (units is None) == (rows_per_unit is None),
        "rows_per_unit",
        rows_per_unit,
        "goes with units: pass both or neither",
    )
    check(
        privacy is None or (privacy.unit == "record") == (units is None),
        "unit",
        privacy and privacy.unit,
        "must name what units=… are the ids of, and be 'record' without them",
    )
    unsure = units is not None and validation and not validation.public
    check(
        not (unsure and validation and validation.released and validation.units is None),
        "validation.units",
        None,
        "must say which unit each held-out row belongs to, as units=… does of the others",
    )


def refuse_apart(plan: PrivacyPlan | None, world: World) -> None:
    """Refuse noise that is carried from step to step where several processes train together."""
    check(
        world.is_alone or plan is None or not isinstance(plan.noise, Correlated),
        "noise",
        plan and plan.noise,
        f"is carried from step to step by one process, and {world.size} train together",
        "train with one, or take independent noise",
    )
