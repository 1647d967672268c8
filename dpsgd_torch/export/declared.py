"""What a model's numbers mean, as its owner declares it in public: shape, range, labels, output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dpsgd_torch.errors import ExportError, shown

OUTPUTS = ("logits", "probabilities", "values")
_LONGEST = 200  # characters of a name
_MOST_VALUES = 2**24  # of one input
_MOST_REAL = 1e30  # integers are scaled in float32


@dataclass(frozen=True)
class Declared:
    """Facts of a model that are no record's: every file it is carried to may hold them.

    Args:
        input_shape: of one example, as the model takes it without the batch.
        input_range: (low, high) of every input value; what lies outside is cut off.
        labels: what the outputs stand for, in order; none where they have no names.
        output: "logits", "probabilities" or "values".

    Raises:
        ExportError: something that cannot stand in a file.

    >>> Declared((1, 8, 8), (0, 1)).input_range
    (0.0, 1.0)
    >>> Declared((4,), (1, 0))
    Traceback (most recent call last):
    dpsgd_torch.errors.ExportError: input_range = (1, 0): must be (low, high), two finite ...
    """

    input_shape: tuple[int, ...]
    input_range: tuple[float, float]
    labels: tuple[str, ...] = ()
    output: str = "logits"

    def __post_init__(self) -> None:
        shape = self._whole_numbers()
        if not shape or min(shape) < 1 or math.prod(shape) > _MOST_VALUES:
            raise ExportError(
                f"input_shape = {shown(self.input_shape)}: must be the whole numbers > 0 of one "
                f"example, {_MOST_VALUES:,} values at most; leave the batch out"
            )
        low, high = self._ends()
        if not -_MOST_REAL < low < high < _MOST_REAL:
            raise ExportError(
                f"input_range = {shown(self.input_range)}: must be (low, high), two finite numbers "
                "between which every input value lies; declare it without looking at the records"
            )
        if self.output not in OUTPUTS:
            raise ExportError(f"output = {shown(self.output)}: must be one of {', '.join(OUTPUTS)}")
        labels: Any = self.labels
        if isinstance(labels, str) or not _all_plain(labels) or len(set(labels)) < len(labels):
            raise ExportError(
                f"labels = {shown(labels)}: must be different names of printable characters, one "
                "for each output"
            )
        object.__setattr__(self, "input_shape", shape)
        object.__setattr__(self, "input_range", (low, high))
        object.__setattr__(self, "labels", tuple(labels))

    def _whole_numbers(self) -> tuple[int, ...]:
        given: Any = self.input_shape
        if not isinstance(given, Sequence) or not all(type(size) is int for size in given):
            return ()
        return tuple(given)

    def _ends(self) -> tuple[float, float]:
        given: Any = self.input_range
        numbers = isinstance(given, Sequence) and not any(map(_no_number, given))
        if not numbers or len(given) != 2:
            return (math.nan, math.nan)
        try:
            return (float(given[0]), float(given[1]))
        except OverflowError:
            return (math.nan, math.nan)

    def refuse_other_outputs(self, outputs: int) -> None:
        """Refuse labels that are not one for each output."""
        if self.labels and len(self.labels) != outputs:
            raise ExportError(
                f"labels = {shown(self.labels)}: are {len(self.labels)}, and the model has "
                f"{outputs} outputs; name each, or none"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "input_shape": list(self.input_shape),
            "input_range": list(self.input_range),
            "output": self.output,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Declared:
        """Those that ``to_json`` made; anything else is refused."""
        return cls(
            data.get("input_shape", ()),
            data.get("input_range", ()),
            data.get("labels", ()),
            data.get("output", ""),
        )


def is_plain(name: object) -> bool:
    """Whether a name can stand in a file: printable, of some length, and text in UTF-8.

    >>> is_plain("punch"), is_plain("a\\nb"), is_plain("\\udce9"), is_plain(7)
    (True, False, False, False)
    """
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST


def _no_number(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int | float)


def _all_plain(names: Any) -> bool:
    return isinstance(names, Iterable) and all(map(is_plain, names))
