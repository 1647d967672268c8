"""A quantity as a function of the step: the same numbers reach the loop and the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accountant.errors import check


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        check(0 <= self.value < math.inf, "schedule value", self.value, "must be a number ≥ 0")

    def at(self, step: int) -> float:
        return self.value

    def scaled(self, factor: float) -> Constant:
        return Constant(self.value * factor)

    def to_json(self) -> dict[str, Any]:
        return {"type": "constant", "value": self.value}


@dataclass(frozen=True)
class Linear:
    """A straight line from ``first`` at step 0 to ``last`` at step ``steps`` − 1.

    >>> line = Linear(first=2.0, last=1.0, steps=3)
    >>> [line.at(step) for step in range(3)]
    [2.0, 1.5, 1.0]
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        for value in (self.first, self.last):
            check(0 <= value < math.inf, "schedule value", value, "must be a number ≥ 0")
        check(self.steps >= 1, "schedule steps", self.steps, "must be at least 1")

    def at(self, step: int) -> float:
        progress = min(step / max(1, self.steps - 1), 1.0)
        return self.first + (self.last - self.first) * progress

    def scaled(self, factor: float) -> Linear:
        return Linear(self.first * factor, self.last * factor, self.steps)

    def to_json(self) -> dict[str, Any]:
        return {"type": "linear", "first": self.first, "last": self.last, "steps": self.steps}


Schedule = Constant | Linear


def schedule_from_json(data: Mapping[str, Any]) -> Schedule:
    """The schedule that ``to_json`` wrote.

    >>> schedule_from_json(Linear(2.0, 1.0, 3).to_json())
    Linear(first=2.0, last=1.0, steps=3)
    """
    fields = {name: value for name, value in data.items() if name != "type"}
    return {"constant": Constant, "linear": Linear}[data["type"]](**fields)


def as_schedule(value: float | Schedule) -> Schedule:
    """A number becomes a constant schedule."""
    return value if isinstance(value, Constant | Linear) else Constant(float(value))
