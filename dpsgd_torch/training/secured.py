"""What a run's arguments become in secure mode, or why they cannot."""

from __future__ import annotations

import dataclasses

from accountant.errors import check
from dpsgd_torch.noise.grid import GRID
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.secure.generator import refuse_missing
from dpsgd_torch.training.streams import Key
from dpsgd_torch.training.validation import Validation


def secured(
    privacy: Privacy | None, validation: Validation | None, seed: int | None
) -> tuple[Privacy | None, Validation | None]:
    """The promise with exact noise, and validation with it.

    A run without privacy has the generator alone.

    Raises:
        InvalidValue: a seed, noise of another kind, or a library that is missing.
    """
    refuse_missing()
    check(
        seed is None or isinstance(seed, Key),
        "secure",
        True,
        "takes its key from the operating system, not from a seed",
        "leave out seed, or secure",
    )
    if privacy is None:
        return privacy, validation
    check(
        privacy.noise in (INDEPENDENT, GRID),
        "secure",
        True,
        f"has noise of its own kind, not {privacy.noise.name}",
        "leave out one or the other",
    )
    if validation is not None:
        validation = dataclasses.replace(validation, secure=True)
    return dataclasses.replace(privacy, noise=GRID), validation
