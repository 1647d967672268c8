"""MLPerf Tiny's four networks give the same bytes wherever they run: numpy, TFLM, host C, boards.

The networks as `dpsgd_torch.tasks` builds them, without norms or with standardized weights, drawn
at random (as far as bits go, weights are weights), on random inputs and those at both ends of the
range. A line each for TensorFlow Lite Micro's interpreter, for C by every host compiler and for
every emulated board whose memory holds the network; a board of unicorn is some 20 times slower than
one of QEMU, so it may be given fewer inputs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from tiny_networks import SHAPES, network_of

from dpsgd_torch.errors import BoardTooSmall
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.emulate import available_boards, missing_tools, run_on
from dpsgd_torch.export.host import COMPILERS, run_on_host
from dpsgd_torch.export.program import Int8, Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has


def program_of(name: str, count: int, norm: str = "none") -> tuple[Program, Int8]:
    """The network in integers, and so many inputs of it."""
    shape, _ = SHAPES[name]
    model = network_of(name, norm)
    generator = torch.Generator().manual_seed(1)
    inputs = (2 * torch.rand(max(count, 16), *shape, generator=generator) - 1).numpy()
    inputs *= np.linspace(0.02, 1.0, len(inputs)).reshape(-1, *[1] * len(shape))
    inputs[0], inputs[1] = -1.0, 1.0
    graph = to_onnx(model, shape, {})
    program = compile_model(graph, input_range=(-1, 1), public_inputs=inputs[:16])
    return program, program.quantize(to_channels_last(inputs[:count]))


def answers(
    program: Program, inputs: Int8, emulated: int, only: str = ""
) -> Iterator[tuple[str, Int8 | str]]:
    """(who, what it answers, or why not) for each that can run it; of boards, those named so."""
    yield "TFLM interpreter", interpret(to_int8_tflite(program), inputs)
    sources = to_c(program)
    for compiler in COMPILERS:
        if has("ziglang" if compiler == "zig" else compiler):
            yield f"host C, {compiler}", run_on_host(sources, inputs, compiler)
    for board in (each for each in available_boards() if only in str(each)):
        most = emulated if board.runner == "unicorn" else len(inputs)
        try:
            yield str(board), run_on(board, sources, inputs[:most]).outputs
        except BoardTooSmall as error:
            yield str(board), str(error).partition(": ")[2]


def main() -> None:
    asked = _asked()
    for name in asked.networks:
        program, inputs = program_of(name, asked.inputs, asked.norm)
        norm = run(program, inputs).reshape(len(inputs), -1)
        print(f"\n{name}: {len(inputs)} inputs, {norm.size} bytes", flush=True)
        began = time.monotonic()
        for who, found in answers(program, inputs, asked.unicorn, asked.boards):
            if isinstance(found, str):
                told = f"not run: {found[:70]}"
            else:
                wanted = norm[: len(found)]
                differ = int((found.reshape(wanted.shape) != wanted).sum())
                told = f"{differ} of {wanted.size} bytes differ"
            print(f"  {who:32} {told}   {time.monotonic() - began:.0f} s", flush=True)
            began = time.monotonic()
    for line in missing_tools():
        print(line)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--norm", choices=("none", "standardized"), default="none")
    parser.add_argument("--inputs", type=int, default=400, help="a network (default %(default)s)")
    parser.add_argument("--unicorn", type=int, default=400, help="inputs of a unicorn board")
    parser.add_argument("--boards", default="", help="only those whose name holds this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
