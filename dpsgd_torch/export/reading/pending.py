"""What operators have been read of a function of one value that no layer makes as yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.reading.values import Value

TRUTHS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or")


@dataclass(frozen=True)
class Pending:
    """Operators from ``root``, by its ``names``, to a value that no layer makes as yet."""

    root: Value
    names: frozenset[str]
    nodes: tuple[onnx.NodeProto, ...]
    numbers: dict[str, NDArray[Any]]

    @property
    def is_truth(self) -> bool:
        return self.nodes[-1].op_type in TRUTHS
