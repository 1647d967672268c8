"""Graphs through every back end: how many bytes differ from numpy's."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

import numpy as np
from shared_kernels import shared

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Graph, evaluate
from dpsgd_torch.export.host import Compiler, run_many_on_host
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has


def program_of(graph: Graph, input_range=(-1.0, 1.0), seen=None) -> Program:
    graph = fold_affine(graph)
    return quantize(graph, ranges(graph, input_range, seen))


def every_byte(program: Program, count: int = 24, seed: int = 0) -> np.ndarray:
    """Random inputs, those all at one end, and those that hold each value once."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(-128, 128, (count, *program.input.shape)).astype(np.int8)
    inputs[0], inputs[1] = -128, 127
    inputs[2] = (np.arange(inputs[2].size) % 256 - 128).reshape(inputs[2].shape)
    return inputs


def differing(*programs: Program, sanitize: bool = True) -> dict[tuple[str, int], Any]:
    """(back end, which program) → bytes, of those where any differs from numpy's."""
    numbered = dict(enumerate(programs))
    return in_tflm(numbered) | in_c(numbered, sanitize)


def in_tflm(programs: Mapping[int, Program]) -> dict[tuple[str, int], Any]:
    """The same of TensorFlow Lite Micro alone, by the programs' numbers."""
    found = {}
    for number, program in programs.items():
        inputs = every_byte(program)
        norm = run(program, inputs)
        answers = interpret(to_int8_tflite(program), inputs).reshape(norm.shape)
        found["tflm", number] = int((answers != norm).sum())
    return {key: count for key, count in found.items() if count}


def in_c(
    programs: Mapping[int, Program], sanitize: bool = True, share: bool = False
) -> dict[tuple[str, int], Any]:
    """The same of C alone, all programs in one translation unit; nothing where none compiles.

    ``share``: each kernel once for all of them, not as it is exported.
    What stops the run, as a sanitizer does, is looked for in each program alone, and told.
    """
    compiler = host_compiler()
    if compiler is None:
        return {}
    given = {number: every_byte(program) for number, program in programs.items()}
    sources = [to_c(program, f"net{number}") for number, program in programs.items()]
    models = list(zip(shared(sources) if share else sources, given.values(), strict=True))
    try:
        outputs = run_many_on_host(models, compiler, sanitize)
    except ExportError as error:
        if len(programs) == 1:
            return {(compiler, number): str(error) for number in programs}
        alone = (in_c({number: program}, sanitize, share) for number, program in programs.items())
        return dict(ChainMap(*alone)) or {(compiler, -1): str(error)}
    found = {}
    for (number, program), answers in zip(programs.items(), outputs, strict=True):
        norm = run(program, given[number])
        found[compiler, number] = int((answers.reshape(norm.shape) != norm).sum())
    return {key: count for key, count in found.items() if count}


def host_compiler() -> Compiler | None:
    """gcc, whose sanitizers see most, or the wheel's clang."""
    if has("gcc"):
        return "gcc"
    return "zig" if has("ziglang") else None


def furthest(graph: Graph, program: Program, inputs: np.ndarray) -> float:
    """The largest distance of the integers from the reals, in steps of the output's scale."""
    wanted = evaluate(graph, inputs)[-1]
    out = program.output
    made = out.scale * (run(program, program.quantize(inputs)) - np.float64(out.zero_point))
    return float(np.abs(made - wanted).max() / out.scale)
