"""What each layer of a model costs on a microcontroller: flash, RAM and instructions.

Flash is read off the linked image's symbols, RAM off the arena's plan, and instructions are counted
by the emulator between symbols that stand in the code before each layer: the parts add up exactly
to the whole of the image they are counted in.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dpsgd_torch.export.boards import MIB, Board, Region, board
from dpsgd_torch.export.c_overlap import aligned
from dpsgd_torch.export.c_planner import Arena
from dpsgd_torch.export.elf import Image
from dpsgd_torch.export.emulate import run_on
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    MaxPool2D,
    Operation,
    Program,
    Table,
)
from dpsgd_torch.export.run_unicorn import instructions_before
from dpsgd_torch.export.to_c import arena_of, scratch_of, to_c
from dpsgd_torch.export.toolchain import build, firmware, put, require

_FLASH, _RAM = 16 * MIB, 4 * MIB


@dataclass(frozen=True)
class Block:
    """Bytes of the arena that a tensor, or a layer's scratch, holds in steps made … last."""

    name: str
    offset: int
    size: int
    made: int
    last: int
    scratch: bool = False


@dataclass(frozen=True)
class LayerCost:
    """One layer; ``flash_bytes`` are its constants, ``ram_bytes`` the arena in use as it runs."""

    name: str
    kind: str
    shape: tuple[int, ...]
    flash_bytes: int
    ram_bytes: int
    instructions: int


@dataclass(frozen=True)
class Cost:
    """A whole image's, by layers; ``rest`` are instructions before the first and after the last."""

    layers: tuple[LayerCost, ...]
    blocks: tuple[Block, ...]
    rest: int
    code_bytes: int
    """Kernels and calls."""
    flash_bytes: int
    arena_bytes: int
    buffer_bytes: int
    """The caller's input and output."""
    stack_bytes: int
    ram_bytes: int
    instructions: int
    """Of one inference, by the image as it is exported, without marks."""
    instructions_m0: int
    """The same compiled for a Cortex-M0+, which lacks the DSP instructions."""
    core: str = "Cortex-M4"

    @property
    def counted(self) -> int:
        """What the parts add up to."""
        return sum(layer.instructions for layer in self.layers) + self.rest

    @property
    def peak(self) -> int:
        """The layer that holds most of the arena."""
        return int(np.argmax([layer.ram_bytes for layer in self.layers]))


def measure_cost(program: Program) -> Cost:
    """Measured with one inference, of zeros, on an emulated Cortex-M4.

    Raises:
        ExportError: ziglang or unicorn is missing.
    """
    for tool in ("ziglang", "unicorn"):
        require(tool)
    arena, steps = arena_of(program), len(program.steps)
    where, zeros = _roomy("unicorn-m4"), np.zeros((1, program.input.size), np.int8)
    plain = run_on(where, to_c(program), zeros)
    marks = [f"model_mark_{index}" for index in range(steps + 1)]
    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        image = build(where, to_c(program, marked=True), Path(name))
        reached, whole = instructions_before(where, image, zeros[0], marks)
        small, image_m0 = build_m0(program, Path(name))
        _, instructions_m0 = instructions_before(small, image_m0, zeros[0], [])
    blocks = blocks_of(program, arena)
    constants, code = _flash(image, steps)
    layers = tuple(
        LayerCost(
            *describe(step.operation),
            step.output.shape,
            constants[index],
            _held([each for each in blocks if each.made <= index <= each.last]),
            reached[index + 1] - reached[index],
        )
        for index, step in enumerate(program.steps)
    )
    return Cost(
        layers=layers,
        blocks=blocks,
        rest=whole - (reached[-1] - reached[0]),
        code_bytes=code,
        flash_bytes=plain.flash_bytes,
        arena_bytes=arena.size,
        buffer_bytes=aligned(program.input.size) + aligned(program.output.size),
        stack_bytes=plain.stack_bytes,
        ram_bytes=plain.ram_bytes,
        instructions=round(plain.instructions_per_inference),
        instructions_m0=instructions_m0,
    )


def build_m0(program: Program, folder: Path) -> tuple[Board, Image]:
    """A Cortex-M3, which has all instructions of a Cortex-M0+, and the image for that one."""
    put(folder, {"runtime_m0.c": firmware("runtime_m0.c")})
    flags = (*board("unicorn-m3").flags[:2], "-mcpu=cortex_m0plus")
    where = replace(_roomy("unicorn-m3"), flags=flags)
    return where, build(where, to_c(program), folder, extra=["runtime_m0.c"])


def describe(operation: Operation) -> tuple[str, str]:
    """(a layer's name, its kind).

    >>> from dpsgd_torch.export.program import Softmax
    >>> describe(Softmax(1 << 30, 24, -62))
    ('softmax', 'softmax')
    """
    if isinstance(operation, Dense):
        outputs, inputs = operation.weights.shape
        return f"dense {inputs}→{outputs}", "dense"
    if isinstance(operation, Conv2D | MaxPool2D | AveragePool2D):
        kernel = "×".join(map(str, operation.window.kernel))
        kind = {MaxPool2D: "max pool", AveragePool2D: "average pool"}.get(type(operation), "conv")
        if isinstance(operation, Conv2D) and operation.groups > 1:
            kind = "depthwise" if operation.weights.shape[3] == 1 else "grouped conv"
        stride = max(operation.window.stride)
        strided = f" /{stride}" if stride > 1 and kind[-4:] != "pool" else ""
        return f"{kind} {kernel}{strided}", "pointwise" if kernel == "1×1" else kind
    if isinstance(operation, Table):
        return operation.function, "table"
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(operation).__name__).lower()
    kind = name.removesuffix(" int8")
    return kind, kind


def blocks_of(program: Program, arena: Arena) -> tuple[Block, ...]:
    """Tensors and scratch in the order in which they are made."""
    last = {source: step for step, reads in enumerate(program.read) for source in reads}
    found = [
        Block(
            describe(program.steps[t - 1].operation)[0], at, tensor.size, t - 1, last.get(t, t - 1)
        )
        for t, (tensor, at) in enumerate(zip(program.tensors, arena.tensors, strict=True))
        if at is not None
    ]
    found += [
        Block("scratch", arena.scratch[step], size, step, step, scratch=True)
        for step, size in enumerate(scratch_of(program))
        if size
    ]
    return tuple(sorted(found, key=lambda each: (each.made, each.scratch)))


def _held(blocks: list[Block]) -> int:
    """Bytes that lie in any of them."""
    total = end = 0
    for block in sorted(blocks, key=lambda each: each.offset):
        total += max(0, block.offset + block.size - max(end, block.offset))
        end = max(end, block.offset + block.size)
    return total


def _flash(image: Image, steps: int) -> tuple[list[int], int]:
    """(constants of each layer, code), in bytes."""
    constants, code = [0] * steps, 0
    for name, size in image.sizes.items():
        if found := re.match(r"model_layer(\d+)(_|$)", name):
            constants[int(found[1])] += size
        elif name.startswith("model_") and not re.match(r"model_(mark|arena)", name):
            code += size
    return constants, code


def _roomy(name: str) -> Board:
    """The board with memory for any model: what does not fit is to be seen, not refused."""
    where = board(name)
    return replace(
        where, flash=Region(where.flash.origin, _FLASH), ram=Region(where.ram.origin, _RAM)
    )
