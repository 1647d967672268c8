"""Clipping by name: what ``--clipping`` and ``Privacy(clipping="…")`` take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from accountant.errors import InvalidValue
from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.clipping.automatic import AutomaticClipping
from dpsgd_torch.clipping.base import Clipping
from dpsgd_torch.clipping.flat import FLAT
from dpsgd_torch.clipping.per_group import GroupClipping

GRAMMAR = "flat, automatic[:γ], adaptive:QUANTILE[:RATE], per-layer[:size]"
KINDS: dict[str, Callable[..., Clipping]] = {
    "flat": lambda: FLAT,
    "automatic": lambda *gamma: AutomaticClipping(*_floats(gamma, 1)),
    "adaptive": lambda *numbers: AdaptiveClipping(*_floats(numbers, 2)),
    "per-layer": lambda split="equal": GroupClipping(split),
}


def clipping_of(text: str) -> Clipping:
    """The clipping that a text names.

    Raises:
        InvalidValue: it names none.

    >>> clipping_of("automatic:0.1"), clipping_of("adaptive:0.5").rate
    (AutomaticClipping(gamma=0.1), 0.2)
    """
    name, *rest = text.split(":")
    try:
        return KINDS[name](*rest)
    except InvalidValue as error:
        raise InvalidValue(f"clipping = {text}: {error}") from error
    except (KeyError, TypeError, ValueError):
        raise InvalidValue(f"clipping = {text}: must be one of {GRAMMAR}") from None


def clipping_from_json(data: Mapping[str, Any] | None) -> Clipping:
    """The clipping that ``to_json`` wrote; flat where nothing was written.

    >>> clipping_from_json(GroupClipping("size").to_json()).split
    'size'
    """
    if data is None:
        return FLAT
    fields = dict(data)
    kinds = {each.name: each for each in (AutomaticClipping, AdaptiveClipping, GroupClipping)}
    kind = kinds[fields.pop("clipping")]
    return kind(**fields)


def _floats(texts: tuple[str, ...], most: int) -> list[float]:
    if len(texts) > most:
        raise ValueError
    return list(map(float, texts))
