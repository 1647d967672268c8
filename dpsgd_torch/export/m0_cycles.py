"""Cycles of a Cortex-M0+ by its instruction set table, with memory that never waits.

The table: Cortex-M0+ Technical Reference Manual, section 3.3, with the multiplier of one cycle.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from dpsgd_torch.export.cost import build_m0
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.run_unicorn import trace

_LITERAL, _BRANCH = 0b01001, 0b11100
_LOAD_STORE = range(0x5, 0xA)
_CONDITIONAL, _MULTIPLE = 0xD, 0xC


def cycles_m0(program: Program) -> tuple[int, int]:
    """(cycles, instructions) of one inference of zeros; calls Python once an instruction."""
    total = count = 0
    passed: int | None = None  # where a conditional branch goes on that is not taken

    def note(address: int, code: bytes) -> None:
        nonlocal total, count, passed
        total += cycles_of(code) + (passed is not None and passed != address)
        count += 1
        passed = address + 2 if code[1] >> 4 == _CONDITIONAL else None

    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        where, image = build_m0(program, Path(name))
        trace(where, image, np.zeros(program.input.size, np.int8), note)
    return total, count


def cycles_of(code: bytes) -> int:
    """Of one instruction, a conditional branch not taken.

    >>> [cycles_of(bytes.fromhex(code)) for code in ("5143", "0168", "30b5", "30bd", "fff7feff")]
    [1, 2, 4, 6, 3]
    """
    if len(code) == 4:
        return 3  # BL; barriers take as many
    word = int.from_bytes(code, "little")
    registers = (word & 0xFF).bit_count()
    if word >> 12 in _LOAD_STORE or word >> 11 in (_LITERAL, _BRANCH):
        return 2
    if word >> 12 == _MULTIPLE or word >> 8 == 0xB4 or word >> 8 == 0xBC:
        return 1 + registers
    if word >> 8 == 0xB5:
        return 2 + registers
    if word >> 8 == 0xBD:
        return 4 + registers
    to_counter = word >> 8 == 0x47 or word & 0xFF87 in (0x4487, 0x4687)
    return 2 if to_counter else 1
