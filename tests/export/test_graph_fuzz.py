"""Random graphs of every kind: numpy, TensorFlow Lite Micro and sanitized C, byte for byte.

300 graphs; 3,000 by ``pytest tests/export/test_graph_fuzz.py --graphs 3000``, 90 CPU seconds, where
TensorFlow Lite can say 2,530 of them. A failure tells the seed, of ``random_graph_program(seed)``.
Every fourth graph may hold what C alone has: norms, curves, transpositions of five axes; averages
that are padded as TensorFlow Lite cannot say it are C's alone, too.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import Any, get_args, get_type_hints

import every_back_end
import numpy as np
import pytest
from every_back_end import host_compiler, in_c, in_tflm
from random_graphs import CURVES, random_graph, random_graph_program

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import c_planner, kinds, to_c
from dpsgd_torch.export.c_text import source
from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import (
    Convolution,
    FloatKind,
    Graph,
    Layer,
    Linear,
    Pooling,
    evaluate,
)
from dpsgd_torch.export.kinds.crop import Crop
from dpsgd_torch.export.kinds.curve import Curve
from dpsgd_torch.export.kinds.group_norm import GroupNorm
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul
from dpsgd_torch.export.kinds.transpose import Transpose
from dpsgd_torch.export.kinds.view import View
from dpsgd_torch.export.program import Operation, OperationKind, Program
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges
from dpsgd_torch.export.reference import trace
from dpsgd_torch.export.to_tflite import to_int8_tflite

FEW = range(16)
NOT_IN_TFLITE = re.compile(
    "operator = GroupNorm: TensorFlow Lite has no|operator = AveragePool: padding"
    "|operator = (Abs|Sin|Softplus|Softsign): .* no int8 operator"
    "|layer \\d+: a transposition of 5 axes"
)

needs_a_compiler = pytest.mark.skipif(
    host_compiler() is None, reason="neither gcc nor ziglang is installed"
)


def programs_of(seeds: range) -> dict[int, Program]:
    return {seed: random_graph_program(seed) for seed in seeds}


def has_tflite(program: Program) -> bool:
    try:
        to_int8_tflite(program)
    except ExportError as error:
        if not NOT_IN_TFLITE.match(str(error)):
            raise
        return False
    return True


def test_not_a_byte_differs_in_tensorflow_lite_micro(graph_seeds):
    programs = programs_of(graph_seeds)
    said = {seed: program for seed, program in programs.items() if has_tflite(program)}
    assert len(said) >= 0.6 * len(programs)
    assert in_tflm(said) == {}


@needs_a_compiler
def test_not_a_byte_differs_in_c_and_no_sanitizer_stops_it(graph_seeds):
    assert in_c(programs_of(graph_seeds), share=True) == {}


@needs_a_compiler
def test_nor_does_one_where_each_has_its_own_kernels_as_exported():
    assert in_c(programs_of(range(20))) == {}


def told(part: Any) -> str:
    """A layer or an operation: its class, and which of those it is that share one."""
    which = getattr(part, "kind", getattr(part, "function", ""))
    return f"{type(part).__name__} {which if isinstance(which, str) else ''}".strip()


def registered(union: Any, base: type) -> set[str]:
    """All that there are, told so: those of the union, and every final class of the base."""
    for module in pkgutil.iter_modules(kinds.__path__, f"{kinds.__name__}."):
        importlib.import_module(module.name)
    found = set()
    for cls in (*(set(get_args(union)) - {base}), *final(base)):
        which = get_args(get_type_hints(cls).get("kind")) or (getattr(cls, "function", ""),)
        found |= {f"{cls.__name__} {each}".strip() for each in which}
    return found


def final(base: type) -> Iterator[type]:
    """The project's, not those of other tests."""
    for cls in base.__subclasses__():
        yield from final(cls)
        if not inspect.isabstract(cls) and cls.__module__.startswith("dpsgd_torch."):
            yield cls


def test_every_kind_of_layer_is_drawn():
    """A kind that the compiler has is one that the fuzz draws: ``tests/random_graphs.py``."""
    drawn = {told(layer) for seed in range(150) for layer in random_graph(seed).layers}
    assert registered(Layer, FloatKind) - drawn == set()
    assert {"Pooling max", "GroupNorm", "Activation softmax"} <= drawn


def test_every_operation_is_drawn():
    drawn = {
        told(step.operation) for seed in range(150) for step in random_graph_program(seed).steps
    }
    tables = {"Table tanh", "Table logistic"}
    assert (registered(Operation, OperationKind) - {"Table"}) | tables <= drawn


def test_a_kind_that_is_not_drawn_would_be_missed():
    class Undrawn(OperationKind):
        carry_out = write_c = write_tflite = None

    Undrawn.__module__ = "dpsgd_torch.export.kinds.undrawn"
    assert "Undrawn" in registered(Operation, OperationKind)
    Undrawn.__module__ = __name__
    assert "Undrawn" not in registered(Operation, OperationKind)


def traits(graph: Graph) -> Iterator[str]:
    """What a kind's name does not say."""
    for index, (layer, sources) in enumerate(zip(graph.layers, graph.sources, strict=True)):
        before = graph.shapes[sources[0]]
        if len(graph.readers(index + 1)) > 1:
            yield "a branch"
        if len(before) == 3 and before[0] == 1 and before[1] > 4:
            yield f"{type(layer).__name__} of a line"
        if isinstance(layer, Convolution | Pooling):
            name = type(layer).__name__
            if isinstance(layer, Convolution) and layer.groups > 1:
                each = len(layer.weights) // layer.groups
                name = f"Depthwise x {each}" if layer.groups == before[-1] else "Grouped"
            yield name
            yield from [f"{name}, strides"] if max(layer.window.stride) > 1 else []
            yield from [f"{name}, padding"] if any(map(any, layer.window.padding)) else []
            if max(layer.window.dilation) > 1:
                yield f"{name}, dilation"
                moves = max(layer.window.stride) > 1 and any(map(any, layer.window.padding))
                yield from [f"{name}, all of it"] if moves else []
        if isinstance(layer, Linear):
            yield f"Linear of {len(before)} axes, " + (
                "read" if graph.readers(index + 1) else "last"
            )
        if isinstance(layer, View | Transpose | Crop):
            after = len(graph.shapes[index + 1])
            yield f"{type(layer).__name__}, {len(before)} axes to {after}"
        if isinstance(layer, Crop) and max(layer.steps) > 1:
            yield f"Crop that skips, {len(before)} axes"
        if isinstance(layer, Transpose):
            yield f"Transpose of {len(layer.sides)}"
        if isinstance(layer, Curve):
            yield f"Curve {layer.told}"
        if isinstance(layer, Mean):
            yield f"Mean over {layer.axes}, {len(graph.shapes[index + 1])} axes"
        if isinstance(layer, Mul) and len({graph.shapes[source] for source in sources}) > 1:
            yield f"Mul of {' and '.join(str(len(graph.shapes[s])) for s in sources)} axes"
        if isinstance(layer, GroupNorm):
            rows, positions, groups, _ = astuple(layer.groups)
            yield "Norm of " + ("groups" if groups > 1 else "cells" if rows > 1 else "all")
            yield f"Norm of {len(before)} axes, {'one position' if positions == 1 else 'positions'}"


EVERY_WINDOW = ("Convolution", "Depthwise x 1", "Depthwise x 2", "Grouped", "Pooling")


def test_graphs_have_branches_lines_strides_and_flattened_middles():
    found = {trait for seed in range(300) for trait in traits(random_graph(seed))}
    assert found >= {
        "a branch", "Linear of 3 axes, read", "Linear of 1 axes, read", "Linear of 3 axes, last",
        *(f"{name}{more}" for name in EVERY_WINDOW for more in ("", ", strides", ", padding")),
        *(f"{name}, {more}" for name in EVERY_WINDOW[:4] for more in ("dilation", "all of it")),
        *(f"{name} of a line" for name in ("Convolution", "Pooling", "Padding", "Mean", "GroupNorm",
                                           "Add", "Mul", "Concat", "Clip", "Affine", "Crop",
                                           "Upsample", "View", "Transpose")),
        *(f"{name}, {a} axes to {b}" for name in ("View", "Transpose") for a in (1, 3)
          for b in (1, 3)), "Crop, 1 axes to 1", "Crop, 3 axes to 3", "Crop that skips, 1 axes",
        "Crop that skips, 3 axes", *(f"Transpose of {count}" for count in (2, 3, 4, 5)),
        *(f"Curve {name}" for name in CURVES),
        *(f"Mean over {axes}, 3 axes" for axes in ((0,), (1,), (0, 1))), "Mean over (0, 1), 1 axes",
        "Mul of 3 and 1 axes", "Mul of 1 and 3 axes", "Mul of 3 and 3 axes", "Mul of 1 and 1 axes",
        "Norm of groups", "Norm of cells", "Norm of all", "Norm of 1 axes, one position",
        "Norm of 3 axes, one position", "Norm of 3 axes, positions",
    }  # fmt: skip


def test_integers_follow_the_reals():
    """With the ranges that inputs reach, within a few hundredths of the output's range."""
    off = []
    for seed in range(60):
        graph = fold_affine(random_graph(seed))
        seen = np.random.default_rng(seed).uniform(-1, 1, (40, *graph.shapes[0])).astype(np.float32)
        program = quantize(graph, ranges(graph, (-1.0, 1.0), seen))
        real, last = evaluate(graph, seen)[-1], program.output
        found = last.scale * (trace(program, program.quantize(seen))[-1] - last.zero_point * 1.0)
        off.append(np.abs(found - real).max() / max(np.ptp(real), 1e-3))
    assert np.median(off) < 0.05


def cramped(program: Program, prefix: str) -> dict[str, str]:
    """One word of the arena too few, in one model."""
    texts = dict(to_c.to_c(program, prefix))
    if prefix == "net7":
        size = int(re.search(r"net7_arena\[(\d+)\]", texts["net7.c"])[1])
        texts["net7.c"] = texts["net7.c"].replace(f"net7_arena[{size}]", f"net7_arena[{size - 1}]")
    return texts


@needs_a_compiler
def test_a_byte_written_beyond_the_arena_is_caught_and_its_seed_told(monkeypatch):
    if host_compiler() != "gcc":
        pytest.skip("gcc is not installed")
    monkeypatch.setattr(every_back_end, "to_c", cramped)
    found = in_c(programs_of(range(6, 8)))
    assert found.keys() == {("gcc", 7)}
    assert "AddressSanitizer: global-buffer-overflow" in found["gcc", 7]


def whole(arena: c_planner.Arena) -> c_planner.Arena:
    """Its end is none that a sanitizer sees."""
    return replace(arena, size=c_planner.aligned(arena.size))


@needs_a_compiler
def test_a_planner_that_lets_two_tensors_share_a_byte_is_caught(monkeypatch):
    def careless(self, item):
        return [
            replace(each, below=each.below - (each.below > 0), above=each.above - (each.above > 0))
            for each in conflicts(self, item)
        ]

    conflicts = c_planner._Problem.conflicts
    monkeypatch.setattr(c_planner._Problem, "conflicts", careless)
    monkeypatch.setattr(to_c, "place", lambda *told: whole(c_planner.place(*told)))
    plain = {seed: program for seed, program in programs_of(FEW).items() if seed % 4}
    counts = in_c(plain).values()
    assert counts
    assert all(isinstance(count, int) for count in counts)  # not stopped: other bytes


@needs_a_compiler
def test_a_kernel_that_clamps_one_too_low_is_caught(monkeypatch):
    def lower(name: str) -> str:
        return source(name).replace("value > high ? high :", "value > high ? high - 1 :")

    monkeypatch.setattr(to_c, "source", lower)
    counts = in_c(programs_of(FEW), share=True).values()
    assert counts
    assert all(isinstance(count, int) for count in counts)
