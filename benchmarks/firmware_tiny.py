"""The four MLPerf Tiny networks on a Cortex-M4F, ours as a part of TFLM with CMSIS-NN.

One file each: the .tflite that this package writes goes to TensorFlow Lite Micro, the C of the same
integers is ours. Bytes are compared on the logits: a softmax of random weights has two answers.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tflm import Cost, measure
from tflm_image import Checkouts, emulated
from tiny_networks import INPUT_RANGE, TinyNetwork

from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.emulate import BoardRun, run_on
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has, needs

COUNTED = 3
"""Inputs whose instructions are counted."""

TITLES = (
    *("flash KB", "int8", "ratio", "int8", "goal"),
    *("RAM KB", "in place", "ratio", "in place", "goal"),
    *("M instr.", "ratio", "goal"),
)
NOTE = """\
flash     the whole image; int8: beside an interpreter that registers kernels for int8 only
RAM       static memory and stack. Ours holds input and output once, as the caller's buffers; ratio:
          to TFLM's with the harness's buffers beside its arena; in place: to TFLM's without them,
          as in a firmware that writes its samples into the arena
differ    bytes of the logits: our C on this board and our integers in numpy, and TFLM on this
          board, each beside the tflite-micro wheel"""


@dataclass(frozen=True)
class Row:
    """``peers``: TFLM as registered by default, and for int8 only."""

    network: TinyNetwork
    ours: BoardRun
    differ: int
    outputs: int
    peers: tuple[Cost, Cost] | None = None
    peers_differ: int = 0


def compare(
    networks: list[TinyNetwork],
    inputs: int,
    seed: int,
    symmetric: bool,
    folders: dict[str, Path] | None,
) -> None:
    """Print the table, a row as soon as it is measured; ``folders``: TFLM's checkouts."""
    board = emulated()
    missing = [tool for tool in needs(board) if not has(tool)]
    if missing:
        print(f"not measured, the MLPerf Tiny networks: {', '.join(missing)} is missing")
        return
    print(f"\nMLPerf Tiny on {board}, ours" + (" ÷ TFLM with CMSIS-NN" if folders else ""))
    print(f"{'':12}" + "".join(f"{title:>9}" for title in TITLES) + "   bytes that differ")
    for network in networks:
        print("\n".join(lines(measured(network, inputs, seed, symmetric, folders))), flush=True)
    print(NOTE)


def measured(
    network: TinyNetwork,
    inputs: int,
    seed: int,
    symmetric: bool,
    folders: dict[str, Path] | None,
) -> Row:
    """Everything of one network."""
    whole = _program(network, network.build(seed, True, symmetric), seed)
    logits = _program(network, network.build(seed, False, symmetric), seed)
    rows = np.random.default_rng(seed).integers(-128, 128, (inputs, whole.input.size), np.int8)
    ours = run_on(emulated(), to_c(whole), rows[:COUNTED])
    shaped = rows.reshape(inputs, *whole.input.shape)
    told = interpret(to_int8_tflite(logits), shaped).reshape(inputs, -1)
    answers = run_on(emulated(), to_c(logits), rows).outputs
    norm = run(logits, shaped).reshape(inputs, -1)
    differ = int(((answers != told) | (norm != told)).sum())
    if not folders:
        return Row(network, ours, differ, told.size)
    checkouts, lean = Checkouts(**folders), Checkouts(**folders, int8_only=True)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        file, plain = Path(name) / f"{network.name}.tflite", Path(name) / "logits.tflite"
        file.write_bytes(to_int8_tflite(whole))
        plain.write_bytes(to_int8_tflite(logits))
        peers = measure(file, checkouts, COUNTED), measure(file, lean, COUNTED)
        return Row(
            network, ours, differ, told.size, peers, measure(plain, checkouts, inputs).differ
        )


def lines(row: Row) -> list[str]:
    """Ours, the ratios and the goals; below it what TFLM took."""
    ours, blank = row.ours, None
    flash, ram, count = ours.flash_bytes, ours.ram_bytes, ours.instructions_per_inference
    goals = row.network.goal
    note = f"   {row.differ} of {row.outputs}"
    if row.peers is None:
        told = _cells(flash / 1e3, blank, blank, blank, goals[0], ram / 1e3, *[blank] * 3)
        return [
            f"{row.network.name:12}{told}{_cells(goals[1], count / 1e6, blank, goals[2])}{note}"
        ]
    peer, lean = row.peers
    ratios = (flash / peer.flash, ram / peer.ram, count / peer.instructions)
    met = all(ratio <= goal for ratio, goal in zip(ratios, goals, strict=True))
    first = _cells(
        *(flash / 1e3, blank, ratios[0], flash / lean.flash, goals[0]),
        *(ram / 1e3, blank, ratios[1], ram / peer.ram_in_place, goals[1]),
        *(count / 1e6, ratios[2], goals[2]),
    )
    second = _cells(
        *(peer.flash / 1e3, lean.flash / 1e3, blank, blank, blank),
        *(peer.ram / 1e3, peer.ram_in_place / 1e3, blank, blank, blank),
        peer.instructions / 1e6,
    )
    note += f"; goals {'met' if met else 'MISSED'}"
    return [
        f"{row.network.name:12}{first}{note}",
        f"{'  TFLM':12}{second}{'':18}   {row.peers_differ} of {row.outputs}",
    ]


def _cells(*values: float | None) -> str:
    return "".join(" " * 9 if value is None else f"{value:9.3f}" for value in values)


def _program(network: TinyNetwork, module: torch.nn.Module, seed: int) -> Program:
    generator = torch.Generator().manual_seed(seed)
    low, high = INPUT_RANGE
    made_up = torch.rand(20, *network.input_shape, generator=generator) * (high - low) + low
    graph = to_onnx(module, network.input_shape, {})
    return compile_model(graph, input_range=INPUT_RANGE, public_inputs=made_up.numpy())
