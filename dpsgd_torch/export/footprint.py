"""How much flash and RAM a model takes on a Cortex-M4, stack included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import board
from dpsgd_torch.export.emulate import run_on
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    MaxPool2D,
    OperationKind,
    Program,
    Softmax,
)
from dpsgd_torch.export.to_c import arena_of, to_c
from dpsgd_torch.export.toolchain import has, needs

_BOARDS = ("unicorn-m4", "netduinoplus2")
_CODE = {Dense: 900, Conv2D: 500, MaxPool2D: 300, AveragePool2D: 350, Softmax: 500}
_START_UP, _OTHER_CODE, _STACK = 250, 100, 300


@dataclass(frozen=True)
class Footprint:
    """Bytes of a whole image: model, start-up, stack, input and output buffers."""

    flash_bytes: int
    ram_bytes: int
    instructions: float | None
    """Of one inference; None where there is nothing to count them with."""
    measured_on: str | None
    """None: an estimate."""

    def __str__(self) -> str:
        size = f"flash {self.flash_bytes / 1000:.1f} KB, RAM {self.ram_bytes / 1000:.2f} KB"
        if self.measured_on is None:
            return f"{size} (an estimate for Cortex-M4: install dpsgd_torch[mcu] to measure it)"
        return (
            f"{size}, {(self.instructions or 0) / 1000:.1f} k instructions an inference "
            f"(measured on an emulated {self.measured_on})"
        )


def footprint(program: Program) -> Footprint:
    """Measured with one inference on an emulated Cortex-M4, or estimated where none is here."""
    for name in _BOARDS:
        chosen = board(name)
        if not all(has(tool) for tool in needs(chosen)):
            continue
        try:
            ran = run_on(chosen, to_c(program), np.zeros((1, program.input.size), np.int8))
        except ExportError:
            continue
        instructions = ran.instructions_per_inference
        return Footprint(ran.flash_bytes, ran.ram_bytes, instructions, chosen.core)
    return estimate(program)


def estimate(program: Program) -> Footprint:
    """From the weights, the arena and typical sizes of the kernels: within a kilobyte or so.

    >>> from dpsgd_torch.export.program import Step, Tensor
    >>> tensor = Tensor((10,), 1.0, 0)
    >>> print(estimate(Program(tensor, (Step(Softmax(1 << 30, 24, -62), tensor),))))
    flash 0.8 KB, RAM 0.32 KB (an estimate for Cortex-M4: install dpsgd_torch[mcu] to measure it)
    """
    operations = [step.operation for step in program.steps]
    constants = 0
    for operation in operations:
        if isinstance(operation, Dense | Conv2D):
            constants += operation.weights.size + 9 * len(operation.bias)
        elif isinstance(operation, OperationKind):
            constants += operation.constant_bytes
    code = sum(_CODE.get(kind, _OTHER_CODE) for kind in {type(each) for each in operations})
    buffers = program.input.size + program.output.size
    return Footprint(
        flash_bytes=constants + code + _START_UP,
        ram_bytes=buffers + arena_of(program).size + _STACK,
        instructions=None,
        measured_on=None,
    )
