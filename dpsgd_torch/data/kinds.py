"""Registry of data kinds: what may be handed over as data, and which file knows how to read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dpsgd_torch.data import loaders, pairs, tables
from dpsgd_torch.data.base import Data

Kind = Callable[[Any, str | torch.device, str], Data | None]

KINDS: tuple[Kind, ...] = (  # in this order; None is: not mine
    loaders.as_data,
    tables.as_data,
    pairs.as_data,
)


def as_data(given: Any, device: str | torch.device, name: str) -> Data | None:
    """What the first kind makes of it that knows it; None where none does.

    Raises:
        DataError: a kind knows it, and it cannot be trained on.
    """
    for kind in KINDS:
        if (data := kind(given, device, name)) is not None:
            return data
    return None
