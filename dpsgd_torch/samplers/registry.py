"""Sampler registry: the kinds by name, as ``KIND`` or ``KIND:NUMBER``, one line a kind."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from accountant.errors import InvalidValue

if TYPE_CHECKING:
    from dpsgd_torch.samplers.base import Sampler

Made = Callable[..., Any]
"""What makes a sampler of the declared numbers: a class, or one with its own number set."""


@dataclass(frozen=True)
class Kind:
    """Where a kind lives, and the field that ``:NUMBER`` sets; None where it takes none."""

    module: str
    sampler: str
    number: str | None = None


KINDS = {
    "poisson": Kind("poisson", "PoissonSampler"),
    "truncated": Kind("truncated", "TruncatedPoissonSampler", "most_drawn"),
    "balls": Kind("allocation", "AllocationSampler"),
    "allocation": Kind("allocation", "AllocationSampler", "selected"),
    "cyclic": Kind("cyclic", "CyclicPoisson", "cycle"),
    "passes": Kind("passes", "Passes"),
}


def sampler_kind(asked: str) -> Made:
    """What makes the sampler that is asked for, as ``poisson`` or ``truncated:300``.

    Raises:
        InvalidValue: no such kind, or a number that is missing, none, or not taken.

    >>> sampler_kind("poisson")
    <class 'dpsgd_torch.samplers.poisson.PoissonSampler'>
    """
    kind, number = parsed(asked)
    made = _class(kind)
    return made if number is None else partial(made, **{str(kind.number): number})


def parsed(asked: str) -> tuple[Kind, int | None]:
    """The kind and its number, without loading it."""
    name, colon, text = asked.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise InvalidValue(f"sampling = {asked}: must be one of {words()}; choose one")
    if kind.number is None:
        if colon:
            raise InvalidValue(f"sampling = {asked}: {name} takes no number; drop {colon}{text}")
        return kind, None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidValue(
            f"sampling = {asked}: must be {name}:NUMBER, a whole number of at least 1; say it"
        )
    return kind, int(text)


def words() -> str:
    """The kinds as they are asked for."""
    return ", ".join(name + (":NUMBER" if kind.number else "") for name, kind in KINDS.items())


def sampler_from_json(told: Mapping[str, Any]) -> Sampler:
    """The sampler that ``Sampler.to_json`` wrote.

    Raises:
        InvalidValue: a kind that is not registered here.
    """
    fields = dict(told)
    name = fields.pop("sampler", "poisson")  # which wrote none when there was no other
    for kind in KINDS.values():
        made = _class(kind)
        if made.name == name:
            return made(**fields)
    raise InvalidValue(f"sampler = {name}: is not one of {words()}, and cannot be made again")


def _class(kind: Kind) -> Any:
    """Its class, which is loaded when it is wanted: --help goes without."""
    return getattr(importlib.import_module(f"dpsgd_torch.samplers.{kind.module}"), kind.sampler)
