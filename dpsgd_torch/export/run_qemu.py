"""A board in QEMU: files through semihosting, one instruction a nanosecond."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import Board
from dpsgd_torch.export.elf import Image
from dpsgd_torch.export.program import Int8
from dpsgd_torch.export.toolchain import run

_SECONDS = 300


def run_qemu(board: Board, image: Image, inputs: Int8, folder: Path) -> tuple[Int8, float, int]:
    """(outputs, instructions per inference, stack bytes) of the image in the folder."""
    (folder / "in.bin").write_bytes(inputs.tobytes())
    command = [
        *board.emulator,
        *("-kernel", "image.elf", "-nographic", "-monitor", "none", "-serial", "none"),
        *("-semihosting-config", "enable=on,target=native", "-icount", "shift=0"),
    ]
    run(command, folder, _SECONDS, f"{board.name}: {board.emulator[0]}")
    outputs = np.frombuffer((folder / "out.bin").read_bytes(), np.int8)
    low, high, stack = struct.unpack("<3I", (folder / "counts.bin").read_bytes())
    if not len(inputs) or len(outputs) % len(inputs):
        raise ExportError(f"{board.name}: {len(outputs)} bytes for {len(inputs)} inputs")
    seconds = (low + (high << 32)) / board.timer_hz
    return outputs.reshape(len(inputs), -1), seconds * 1e9 / len(inputs), stack
