"""One graph of hand-made layers through every back end: how many bytes differ."""

from __future__ import annotations

import numpy as np

from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Graph, evaluate
from dpsgd_torch.export.host import run_many_on_host
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


def differing(*programs: Program, sanitize: bool = True) -> dict[tuple[str, int], int]:
    """(back end, which program) → bytes, of those where any differs from numpy's."""
    found = {}
    for i, program in enumerate(programs):
        inputs = every_byte(program)
        norm = run(program, inputs)
        answers = interpret(to_int8_tflite(program), inputs).reshape(norm.shape)
        found["tflm", i] = int((answers != norm).sum())
    found |= in_c(*programs, sanitize=sanitize)
    return {key: count for key, count in found.items() if count}


def in_c(*programs: Program, sanitize: bool = True) -> dict[tuple[str, int], int]:
    """The same of C alone, all programs in one translation unit; nothing where none compiles."""
    compiler = "gcc" if has("gcc") else "zig"
    if compiler == "zig" and not has("ziglang"):
        return {}
    given = [every_byte(program) for program in programs]
    models = [
        (to_c(program, f"net{i}"), inputs)
        for i, (program, inputs) in enumerate(zip(programs, given, strict=True))
    ]
    outputs = run_many_on_host(models, compiler, sanitize)
    found = {}
    for i, (program, inputs, answers) in enumerate(zip(programs, given, outputs, strict=True)):
        norm = run(program, inputs)
        found[compiler, i] = int((answers.reshape(norm.shape) != norm).sum())
    return {key: count for key, count in found.items() if count}


def furthest(graph: Graph, program: Program, inputs: np.ndarray) -> float:
    """The largest distance of the integers from the reals, in steps of the output's scale."""
    wanted = evaluate(graph, inputs)[-1]
    out = program.output
    made = out.scale * (run(program, program.quantize(inputs)) - np.float64(out.zero_point))
    return float(np.abs(made - wanted).max() / out.scale)
