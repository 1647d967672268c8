"""Functions of one value as tables of 256 bytes; TFLM computes the same."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.program import Int8, OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

EVERY = np.arange(-128, 128, dtype=np.int64)
"""What an int8 can be, in the order of a table."""


@dataclass(frozen=True, eq=False)
class Lookup(OperationKind):
    """table[value + 128]; a kind writes TensorFlow Lite's operator."""

    table: Int8  # (256,)
    function: ClassVar[str]

    @abstractmethod
    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None: ...

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return self.table[inputs[0] + 128].astype(np.int64)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        from dpsgd_torch.export.c_text import array

        table = f"{name}_{self.function}"
        call = f"model_lookup({target.size}, {table}, {{input}}, {{output}});"
        return StepText(("table",), call, (array("int8_t", table, self.table),))

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0
