"""What was asked to be made of a model, and whether in integers."""

from __future__ import annotations

from dataclasses import dataclass

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.targets.base import TargetKind
from dpsgd_torch.export.targets.registry import TARGETS

CALIBRATIONS = {
    "plain": "ranges of the inputs that were made up, and a quarter more",
    "improved": "channels equalised, averages with a scale of their own, ranges without outliers",
    "all": "that, and biases corrected",
}


@dataclass(frozen=True)
class Target:
    """One of ``TARGETS``, and what was asked of its numbers; None: as is usual there.

    >>> Target("c").in_integers, Target("onnx").in_integers, Target("header", False).in_integers
    (True, False, False)
    """

    to: str
    int8: bool | None = None

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise ExportError(f"to = {self.to!r}: must be one of {', '.join(TARGETS)}")
        if self.int8 is False and False not in self.kind.integers:
            raise ExportError(f"int8 = False: {self.to} is in integers only; use --to tflite")
        if self.int8 and True not in self.kind.integers:
            raise ExportError(f"int8 = True: {self.to} is in float32 only; use --to tflite --int8")

    @property
    def kind(self) -> TargetKind:
        return TARGETS[self.to]

    @property
    def in_integers(self) -> bool:
        return self.kind.integers[0] if self.int8 is None else self.int8
