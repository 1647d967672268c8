"""A Cortex-M in unicorn: instructions counted exactly, block by block."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import Board
from dpsgd_torch.export.elf import Image
from dpsgd_torch.export.program import Int8
from dpsgd_torch.export.unicorn_core import core

COUNTED_INPUTS = 4
"""Counting calls Python once a block, so only the first inputs are counted."""

_PAINT = 0xA5
_SECONDS = 300


def run_unicorn(board: Board, image: Image, inputs: Int8, folder: Path) -> tuple[Int8, float, int]:
    """(outputs, instructions per inference, stack bytes)."""
    counter = _Machine(board, image, counting=True)
    for row in inputs[:COUNTED_INPUTS]:
        counter.invoke(row)
    machine = _Machine(board, image, counting=False)
    outputs = np.array([machine.invoke(row) for row in inputs], np.int8)
    counted = counter.instructions / max(1, min(len(inputs), COUNTED_INPUTS))
    return outputs, counted, machine.stack_bytes()


def instructions_before(
    board: Board, image: Image, values: Int8, marks: Sequence[str]
) -> tuple[list[int], int]:
    """(instructions of one inference before each symbol is first reached, those of all)."""
    machine = _Machine(board, image, counting=True)
    reached = machine.watch([image.symbols[mark] & ~1 for mark in marks])
    machine.invoke(values)
    return [reached[image.symbols[mark] & ~1] for mark in marks], machine.instructions


def trace(board: Board, image: Image, values: Int8, note: Callable[[int, bytes], None]) -> None:
    """Tell the address and the bytes of every instruction of one inference, as it is reached."""
    machine = _Machine(board, image, counting=False)
    machine.tell(note)
    machine.invoke(values)


class _Machine:
    """Flash, RAM and a core, waiting at firmware_exchange."""

    def __init__(self, board: Board, image: Image, counting: bool) -> None:
        unicorn: Any = importlib.import_module("unicorn")
        arm_const: Any = importlib.import_module("unicorn.arm_const")
        self._error: type[Exception] = unicorn.UcError
        self._registers = arm_const
        self._board, self._image = board, image
        self.instructions = 0
        self._size_of_block: dict[int, int] = {}
        self._block = (0, 0)
        self._uc: Any = core(board.emulator[0])
        for region in (board.flash, board.ram):
            self._uc.mem_map(region.origin, region.length)
        for address, data in image.segments:
            self._uc.mem_write(address, data)
        top = board.ram.origin + board.ram.length
        self._uc.reg_write(arm_const.UC_ARM_REG_SP, top)
        self._run(image.entry)
        if counting:
            self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._count)

    def invoke(self, values: Int8) -> Int8:
        """One inference."""
        symbols = self._image.symbols
        self._uc.mem_write(symbols["firmware_input"], values.tobytes())
        self._run(self._uc.reg_read(self._registers.UC_ARM_REG_LR))
        size = self._image.sizes["firmware_output"]
        return np.frombuffer(self._uc.mem_read(symbols["firmware_output"], size), np.int8)

    def watch(self, addresses: Sequence[int]) -> dict[int, int]:
        """Filled as it runs: address → instructions before it was first reached."""
        reached: dict[int, int] = {}

        def note(uc: Any, address: int, size: int, data: Any) -> None:
            start, length = self._block  # counted whole already
            rest = bytes(uc.mem_read(address, start + length - address))
            reached.setdefault(address, self.instructions - _thumb_instructions(rest))

        code = importlib.import_module("unicorn").UC_HOOK_CODE
        for address in set(addresses):
            self._uc.hook_add(code, note, begin=address, end=address)
        return reached

    def tell(self, note: Callable[[int, bytes], None]) -> None:
        code: dict[int, bytes] = {}

        def each(uc: Any, address: int, size: int, data: Any) -> None:
            if address not in code:
                code[address] = bytes(uc.mem_read(address, size))
            note(address, code[address])

        self._uc.hook_add(importlib.import_module("unicorn").UC_HOOK_CODE, each)

    def stack_bytes(self) -> int:
        """From the top of RAM down to the last byte ever written."""
        bottom = self._image.symbols["firmware_bss_end"]
        top = self._board.ram.origin + self._board.ram.length
        memory = np.frombuffer(self._uc.mem_read(bottom, top - bottom), np.uint8)
        return int(len(memory) - np.argmax(memory != _PAINT))

    def _run(self, start: int) -> None:
        until = self._image.symbols["firmware_exchange"] & ~1
        try:
            self._uc.emu_start(start | 1, until, timeout=_SECONDS * 1_000_000)
        except self._error as error:
            raise ExportError(f"{self._board.name}: unicorn: {error}") from None
        if self._uc.reg_read(self._registers.UC_ARM_REG_PC) & ~1 != until:
            raise ExportError(f"{self._board.name}: no answer within {_SECONDS} s")

    def _count(self, uc: Any, address: int, size: int, data: Any) -> None:
        self._block = (address, size)
        count = self._size_of_block.get((address << 16) | size)
        if count is None:
            count = _thumb_instructions(bytes(uc.mem_read(address, size)))
            self._size_of_block[(address << 16) | size] = count
        self.instructions += count


def _thumb_instructions(code: bytes) -> int:
    """Instructions of 16 and 32 bits in a stretch of Thumb code.

    >>> _thumb_instructions(bytes.fromhex("00bf2ffa80fa"))  # nop; sxtb16
    2
    """
    at = count = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        count += 1
    return count
