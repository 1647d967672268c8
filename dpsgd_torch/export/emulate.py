"""Run a model's C source on an emulated board: outputs, instructions, flash, RAM, stack."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpsgd_torch.export.boards import Board
from dpsgd_torch.export.program import Int8
from dpsgd_torch.export.run_qemu import run_qemu
from dpsgd_torch.export.run_unicorn import run_unicorn
from dpsgd_torch.export.toolchain import available_boards, build, missing_tools, require

__all__ = ["BoardRun", "available_boards", "missing_tools", "run_on"]


@dataclass(frozen=True, eq=False)
class BoardRun:
    """What a board answered and what that took.

    The image counted is whole: model, vector table, start-up and the harness that feeds it.
    """

    board: Board
    outputs: Int8
    """(inputs, output size)."""
    instructions_per_inference: float
    """Instructions, not cycles."""
    flash_bytes: int
    ram_bytes: int
    """Static (input and output buffers included) and the stack's high-water mark."""
    stack_bytes: int


def run_on(board: Board, sources: dict[str, str], inputs: Int8, level: str = "-O2") -> BoardRun:
    """Compile for a board, run every input, measure.

    Args:
        board: one of ``available_boards()``.
        sources: what ``to_c`` returned.
        inputs: int8, (count, input size) or (count, …shape).
        level: the compiler's optimisation level.

    Raises:
        ExportError: a tool is missing, fails or gives no answer in time.
    """
    flat = np.ascontiguousarray(inputs, np.int8).reshape(len(inputs), -1)
    require("unicorn" if board.runner == "unicorn" else board.emulator[0])
    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        folder = Path(name)
        image = build(board, sources, folder, level)
        runner = run_unicorn if board.runner == "unicorn" else run_qemu
        outputs, instructions, stack = runner(board, image, flat, folder)
    return BoardRun(
        board=board,
        outputs=outputs,
        instructions_per_inference=instructions,
        flash_bytes=image.flash_bytes,
        ram_bytes=image.static_ram_bytes + stack,
        stack_bytes=stack,
    )
