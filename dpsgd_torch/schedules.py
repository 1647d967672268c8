"""A quantity as a function of the step: the same numbers reach the loop and the ledger."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from accountant.errors import check
from dpsgd_torch.errors import ConfigError

GRAMMAR = "constant, linear:0.5, exponential:0.5, cosine:0.1, step:0.5:200 or table:0=1,100=0.5"


class Schedule(Protocol):
    """What every schedule offers; all but their numbers is written once, in ``_Written``."""

    def at(self, step: int) -> float:
        """The value at ``step``, counted from 0; what was last holds ever after."""

    def scaled(self, factor: float) -> Self:
        """The same shape, every value times ``factor``."""

    def to_json(self) -> dict[str, Any]: ...


def _check_value(value: float) -> None:
    check(0 <= value < math.inf, "schedule value", value, "must be a number ≥ 0")


class _Written:
    """Written as JSON with its name and fields."""

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"type": _NAMES[type(self)], **fields}


@dataclass(frozen=True)
class Constant(_Written):
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        _check_value(self.value)

    def at(self, step: int) -> float:
        return self.value

    def scaled(self, factor: float) -> Constant:
        return Constant(self.value * factor)


@dataclass(frozen=True)
class _Between(_Written):
    """From ``first`` at step 0 to ``last`` at step ``steps`` − 1."""

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        _check_value(self.first)
        _check_value(self.last)
        check(self.steps >= 1, "schedule steps", self.steps, "must be at least 1")

    def _progress(self, step: int) -> float:
        return min(step / max(1, self.steps - 1), 1.0)

    def scaled(self, factor: float) -> Self:
        return dataclasses.replace(self, first=self.first * factor, last=self.last * factor)


@dataclass(frozen=True)
class Linear(_Between):
    """A straight line.

    >>> line = Linear(first=2.0, last=1.0, steps=3)
    >>> [line.at(step) for step in range(3)]
    [2.0, 1.5, 1.0]
    """

    def at(self, step: int) -> float:
        return self.first + (self.last - self.first) * self._progress(step)


@dataclass(frozen=True)
class Exponential(_Between):
    """The same ratio at every step; both ends above 0.

    >>> curve = Exponential(first=4.0, last=1.0, steps=3)
    >>> [curve.at(step) for step in range(3)]
    [4.0, 2.0, 1.0]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in (self.first, self.last):
            check(value > 0, "schedule value", value, "must be > 0 for an exponential schedule")

    def at(self, step: int) -> float:
        progress = self._progress(step)
        return float(self.first ** (1 - progress) * self.last**progress)


@dataclass(frozen=True)
class Cosine(_Between):
    """Half a wave: flat at both ends [Loshchilov, Hutter 2017, Eq. 5, without restarts].

    >>> wave = Cosine(first=2.0, last=1.0, steps=3)
    >>> [round(wave.at(step), 12) for step in range(3)]
    [2.0, 1.5, 1.0]
    """

    def at(self, step: int) -> float:
        falling = (1 + math.cos(math.pi * self._progress(step))) / 2
        return self.last + (self.first - self.last) * falling


@dataclass(frozen=True)
class Step(_Written):
    """Times ``factor`` after every ``every`` steps.

    >>> stairs = Step(first=1.0, factor=0.5, every=2)
    >>> [stairs.at(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    first: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        _check_value(self.first)
        _check_value(self.factor)
        check(self.every >= 1, "schedule every", self.every, "must be at least 1 step")

    def at(self, step: int) -> float:
        return float(self.first * self.factor ** (step // self.every))

    def scaled(self, factor: float) -> Step:
        return dataclasses.replace(self, first=self.first * factor)


@dataclass(frozen=True)
class Table(_Written):
    """Each value holds from its step to the next.

    >>> table = Table(steps=(0, 100), values=(1.0, 0.5))
    >>> table.at(99), table.at(100)
    (1.0, 0.5)
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))  # JSON has lists
        object.__setattr__(self, "values", tuple(self.values))
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        whole = bool(self.steps) and self.steps[0] == 0 and len(self.steps) == len(self.values)
        check(rising and whole, "schedule steps", self.steps, "must rise from 0, one a value")
        for value in self.values:
            _check_value(value)

    def at(self, step: int) -> float:
        return self.values[bisect.bisect_right(self.steps, step) - 1]

    def scaled(self, factor: float) -> Table:
        return Table(self.steps, tuple(value * factor for value in self.values))


_TYPES: dict[str, Any] = {
    "constant": Constant,
    "linear": Linear,
    "exponential": Exponential,
    "cosine": Cosine,
    "step": Step,
    "table": Table,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def schedule_from_json(data: Mapping[str, Any]) -> Schedule:
    """The schedule that ``to_json`` wrote.

    >>> schedule_from_json(Linear(2.0, 1.0, 3).to_json())
    Linear(first=2.0, last=1.0, steps=3)
    """
    fields = {name: value for name, value in data.items() if name != "type"}
    schedule: Schedule = _TYPES[data["type"]](**fields)
    return schedule


def as_schedule(value: float | Schedule) -> Schedule:
    """A number becomes a constant schedule."""
    return Constant(float(value)) if isinstance(value, int | float) else value


def shape_from_text(text: str, steps: int) -> Schedule:
    """Factors of a first value over a run of ``steps``, as the flags state them.

    Raises:
        ConfigError: not one of the shapes, or a number missing.

    >>> shape_from_text("linear:0.5", 3).at(2), shape_from_text("step:0.1:30", 90).at(30)
    (0.5, 0.1)
    >>> shape_from_text("table:0=1,10=0.3", 90).at(12)
    0.3
    """
    kind, *numbers = text.split(":")
    try:
        match kind, numbers:
            case "constant", []:
                return Constant(1.0)
            case "linear" | "exponential" | "cosine", [last]:
                shape: Schedule = _TYPES[kind](1.0, float(last), steps)
                return shape
            case "step", [factor, every]:
                return Step(1.0, float(factor), int(every))
            case "table", [rows]:
                pairs = [row.split("=") for row in rows.split(",")]
                return Table(tuple(int(s) for s, _ in pairs), tuple(float(v) for _, v in pairs))
    except ValueError as error:
        raise ConfigError(f"schedule = {text}: {error}; write {GRAMMAR}") from error
    raise ConfigError(f"schedule = {text}: is none of {GRAMMAR}")
