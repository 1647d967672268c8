"""Whether torch, integers, TensorFlow Lite Micro, host C and emulated boards say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import BoardTooSmall, ExportError
from dpsgd_torch.export.compiler import in_memory
from dpsgd_torch.export.emulate import available_boards, missing_tools, run_on
from dpsgd_torch.export.host import COMPILERS, run_on_host
from dpsgd_torch.export.program import Int8, Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has


@dataclass(frozen=True)
class Comparison:
    """One line of a check. ``holds`` is None where nothing had to be equal."""

    who: str
    found: str
    holds: bool | None = None

    def __str__(self) -> str:
        mark = {True: "ok", False: "DIFFERS", None: ""}[self.holds]
        return f"{self.who:34} {self.found}  {mark}".rstrip()


def compare(
    program: Program,
    inputs: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    sources: dict[str, str] | None = None,
    floats: str = "torch",
) -> Iterator[Comparison]:
    """The comparisons, each as soon as it is made.

    Args:
        program: the integers, which are the norm: all others must equal them bit for bit.
        inputs: (batch, …) in the layout of torch.
        expected: (batch, classes), the float model's answers.
        sources: C to check in place of what ``to_c`` makes of the program.
        floats: who gave these answers.
    """
    quantized = program.quantize(in_memory(inputs, program))
    norm = run(program, quantized).reshape(len(inputs), -1)
    scale, zero = program.output.scale, program.output.zero_point
    off = np.abs(scale * (norm.astype(np.float64) - zero) - expected)
    same = int((norm.argmax(axis=1) == expected.argmax(axis=1)).sum())
    yield Comparison(
        f"integers in numpy, {floats} in float",
        f"same answer for {same} of {len(inputs)}, at most {off.max():.3g} apart",
    )
    try:
        file = to_int8_tflite(program)
    except ExportError as error:  # C has operators that TensorFlow Lite has not
        yield Comparison("not compared:", f"TensorFlow Lite Micro's interpreter; {error}")
    else:
        yield _equal("TensorFlow Lite Micro's interpreter", interpret(file, quantized), norm)
    sources = sources or to_c(program)
    for compiler in COMPILERS:
        if has("ziglang" if compiler == "zig" else compiler):
            answers = run_on_host(sources, quantized, compiler)
            yield _equal(f"C on this machine, {compiler}", answers, norm)
    for board in available_boards():
        try:
            ran = run_on(board, sources, quantized)
        except BoardTooSmall as error:
            yield Comparison("not compared:", str(error))
            continue
        cost = (
            f"{ran.flash_bytes / 1000:.1f} KB flash, {ran.ram_bytes / 1000:.2f} KB RAM, "
            f"{ran.instructions_per_inference / 1000:.1f} k instructions"
        )
        yield _equal(str(board), ran.outputs, norm, cost)
    for line in missing_tools():
        yield Comparison("not compared:", line)


def _equal(who: str, answers: Int8, norm: Int8, more: str = "") -> Comparison:
    differ = int((answers.reshape(norm.shape) != norm).sum())
    found = f"{differ} of {norm.size} bytes differ" + (f"; {more}" if more else "")
    return Comparison(who, found, differ == 0)
