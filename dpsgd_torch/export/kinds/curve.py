"""Any function of one value: a table of 256 bytes, computed when the model is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.lookup import EVERY, Lookup
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import Int8, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

ELU = "Elu"
"""With alpha 1: the one that TFLM has in int8, by a table too."""

_LEAST_ELU = 2.0**-15
"""A scale: float32's exp(x) − 1 is off by a 400th of it, and half of all tables are sure."""

_POINTS = 4001


@dataclass(frozen=True, eq=False)
class Curve(LayerKind):
    """``function`` of arrays, value by value; ``told``: its operators, for messages."""

    function: Callable[[Floats], Floats]
    told: str
    name: str = ""

    def apply(self, *inputs: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray(self.function(inputs[0]), inputs[0].dtype)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """The least and the most at many points: close together near zero, where curves bend."""
        low, high = float(lows[0].min()), float(highs[0].max())
        far = max(abs(low), abs(high), 1.0)
        near = np.geomspace(1e-6, far, _POINTS)
        points = np.concatenate([np.linspace(low, high, _POINTS), near, -near, [0.0]])
        points = points[(low <= points) & (points <= high)]
        found = self.apply(points)
        if not np.isfinite(found).all():
            raise ExportError(
                f"operator = {self.told}: is no finite number everywhere between {low:.3g} and "
                f"{high:.3g}, which what it reads can be; clamp that first"
            )
        return np.full_like(lows[0], found.min()), np.full_like(highs[0], found.max())

    def lower(self, asked: Asked) -> int:
        before = asked.before
        if self.told == ELU:
            after = _sure(before, asked.after(least=_LEAST_ELU))
            return asked.add(CurveInt8(_elu(before, after), self), after)
        after = asked.after()
        return asked.add(CurveInt8(_table(before, after, self.function), self), after)

    def write_float(self, write: Writer, fused: int) -> None:
        self.write_tflite(write)

    def write_tflite(self, write: Writer) -> None:
        if self.told != ELU:
            raise ExportError(
                f"operator = {self.told}{self.name and f' ({self.name})'}: TensorFlow Lite Micro "
                "has no int8 operator for it; C has a table of 256 bytes: use --to c, or train "
                "with HardSwish, LeakyRelu or Elu in its place"
            )
        write.file.operator("ELU", [write.source], write.target)


@dataclass(frozen=True, eq=False)
class CurveInt8(Lookup):
    """Each value rounded to nearest, ties away from zero."""

    curve: Curve
    function = "curve"

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        self.curve.write_tflite(write)


def _table(before: Tensor, after: Tensor, function: Callable[[Floats], Floats]) -> Int8:
    x = before.scale * (EVERY - before.zero_point).astype(np.float64)
    with np.errstate(all="ignore"):
        made = np.asarray(function(x), np.float64)
    return _rounded(_finite(made) / after.scale, after)


def _sure(before: Tensor, after: Tensor) -> Tensor:
    """The output, its scale up until every library's float32 exponential makes one table."""
    while not np.array_equal(_elu(before, after, -1.0), _elu(before, after, 1.0)):
        after = replace(after, scale=float(np.float32(after.scale * (1 + 2.0**-12))))
    return after


def _elu(before: Tensor, after: Tensor, way: float = 0.0) -> Int8:
    """TFLM's, in float64; ``way``: less or more by what float32 can be off, 1 ulp of exp(x)."""
    x = before.scale * (EVERY - before.zero_point).astype(np.float64)
    y = np.where(x < 0, np.expm1(np.minimum(x, 0)), x)
    off = 2.0**-22 * np.abs(y) + 1.25 * 2.0**-24 * (x < 0)
    return _rounded((y + way * off) / after.scale, after)


def _rounded(steps: Floats, after: Tensor) -> Int8:
    whole = np.trunc(steps + np.copysign(0.5, steps)) + after.zero_point
    return np.clip(whole, -128, 127).astype(np.int8)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is no number, just beyond the range on the grid, as its nearest neighbour that is."""
    there = np.flatnonzero(np.isfinite(values))
    if not len(there):
        return np.zeros_like(values)
    nearest = there[np.abs(np.arange(len(values))[:, None] - there).argmin(axis=1)]
    return values[nearest]
