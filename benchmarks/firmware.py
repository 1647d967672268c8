"""What does a model cost on a microcontroller: flash, RAM, instructions per inference?

The gesture classifier (714-50-15-2, softmax) and the MNIST CNN, with random weights or those of
runs (--gesture, --mnist), as whole images: model, vector table, start-up and a harness of some
600 bytes that feeds it. RAM is static, input and output included, plus the stack's high-water
mark. Instructions are counted by the emulator: they are no cycles.

    ours    this package's C, on every emulated board that is installed
    emx     emx-onnx-cgen beside us on the Cortex-M4, where it is installed (--emx names its
            program): float32, and int8 as onnxruntime quantizes it

TensorFlow Lite Micro with CMSIS-NN is no pip package: ``tflm.py`` builds and measures it, the same
way, from checkouts that you name. For files of these two models it took 82.9 KB, 5.2 KB and 76.1 k
for the gestures and 93.9 KB, 10.3 KB and 1.58 M for the CNN on a Cortex-M4.

Then the four networks of MLPerf Tiny with random weights (``tiny_networks.py``): ours as a part of
TFLM's from the same .tflite, where its checkouts are named with ``tflm.py``'s flags; else alone.

    python benchmarks/firmware.py --models kws vww resnet autoencoder --tflm DIR --cmsis-nn DIR \\
        --cmsis DIR --gemmlowp DIR --flatbuffers DIR --ruy DIR
"""

from __future__ import annotations

import argparse
import logging
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from firmware_tiny import compare
from tflm import FOLDERS
from tiny_networks import NETWORKS
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import Board
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.emulate import available_boards, missing_tools, run_on
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.mnist.task import mnist_cnn

SEED = 0
GOALS = {"gesture": (41_000, 1_100, 60_000), "mnist": (30_000, 5_000, 900_000)}
GOAL_BOARD = "netduinoplus2"


@dataclass(frozen=True)
class Model:
    name: str
    onnx: onnx.ModelProto
    inputs: np.ndarray


def main() -> None:
    arguments = _arguments()
    tell_machine()
    folders = _folders(arguments)
    for model in _models(arguments):
        if model.name not in arguments.models:
            continue
        print(f"\n{model.name:28} {'who':12} {'flash KB':>9} {'RAM KB':>7} {'instructions':>13}")
        measure_ours(model)
        if shutil.which(arguments.emx):
            measure_emx(model, arguments.emx)
    tiny = [network for network in NETWORKS if network.name in arguments.models]
    if tiny:
        compare(tiny, arguments.tiny_inputs, SEED, arguments.torch_padding, folders)
    for line in missing_tools():
        print(line)


def measure_ours(model: Model) -> None:
    program = compile_model(model.onnx, input_range=(0.0, 1.0), public_inputs=model.inputs)
    inputs = program.quantize(to_channels_last(model.inputs))
    expected = run(program, inputs).reshape(len(inputs), -1)
    for board in available_boards():
        ran = run_on(board, to_c(program), inputs)
        differ = int((ran.outputs != expected).sum())
        row = (ran.flash_bytes, ran.ram_bytes, ran.instructions_per_inference)
        note = f"{differ} of {expected.size} bytes differ"
        if board.name == GOAL_BOARD:
            met = all(figure <= goal for figure, goal in zip(row, GOALS[model.name], strict=True))
            note += ", goals met" if met else ", GOALS MISSED"
        _print(board, "ours", row, note)


def measure_emx(model: Model, emx: str) -> None:
    """As raw bytes of float32 through the same harness."""
    boards = [board for board in available_boards() if board.name == GOAL_BOARD]
    for kind, graph in (("emx float", model.onnx), ("emx int8", _onnxruntime_int8(model))):
        sources = _emx_sources(emx, graph, model.inputs[0].size)
        inputs = model.inputs[:5].reshape(5, -1).astype("<f4").view(np.int8)
        for board in boards:
            try:
                ran = run_on(board, sources, inputs)
            except ExportError as error:
                print(f"{board!s:28} {kind:12} {str(error)[:60]}")
                continue
            row = (ran.flash_bytes, ran.ram_bytes, ran.instructions_per_inference)
            _print(board, kind, row, "")


def _emx_sources(emx: str, graph: onnx.ModelProto, size: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(graph, folder / "peer.onnx")
        limits = ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
        command = [emx, "compile", "peer.onnx", "peer.c", *limits]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        code = (folder / "peer.c").read_text()
    outputs = graph.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    call = (
        "\nvoid model_invoke(const int8_t *x, int8_t *y) { model((const void *)x, (void *)y); }\n"
    )
    header = (
        f"#include <stdint.h>\n#define MODEL_INPUT_SIZE {4 * size}\n"
        f"#define MODEL_OUTPUT_SIZE {4 * outputs}\n"
        "void model_invoke(const int8_t *x, int8_t *y);\n"
    )
    return {"model.c": code + call, "model.h": header}


def _onnxruntime_int8(model: Model) -> onnx.ModelProto:
    """QOperator, per channel: of onnxruntime's formats the one that emx turns into least code."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(model.inputs[:50])

        def get_next(self) -> dict[str, Any] | None:
            row = next(self._rows, None)
            return None if row is None else {"input": row[None]}

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "float.onnx", Path(name) / "int8.onnx"
        onnx.save(model.onnx, before)
        quantization.quantize_static(
            before,
            after,
            Reader(),
            quant_format=quantization.QuantFormat.QOperator,
            per_channel=True,
        )
        return onnx.load(after)


def _models(arguments: argparse.Namespace) -> list[Model]:
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        gesture = nn.Sequential(
            nn.Linear(714, 50),
            nn.ReLU(),
            nn.Linear(50, 15),
            nn.ReLU(),
            nn.Linear(15, 2),
            nn.Softmax(dim=-1),
        ).eval()
    models = []
    for name, shape, module, folder in (
        ("gesture", (714,), gesture, arguments.gesture),
        ("mnist", (1, 28, 28), mnist_cnn(generator).eval(), arguments.mnist),
    ):
        inputs = torch.rand(arguments.inputs, *shape, generator=generator).numpy()
        if folder:
            from dpsgd_torch.app.export.source import read_run

            module = read_run(folder).model
        models.append(Model(name, to_onnx(module, shape, {}), inputs))
    return models


def _print(board: Board, who: str, row: tuple[float, float, float], note: str) -> None:
    flash, ram, instructions = row
    figures = f"{flash / 1000:9.1f} {ram / 1000:7.2f} {instructions:13,.0f}"
    print(f"{board!s:28} {who:12} {figures}   {note}".rstrip(), flush=True)


def tell_machine() -> None:
    packages = ("numpy", "torch", "onnx", "ziglang", "unicorn", "emx-onnx-cgen")
    print(f"{platform.machine()}, Python {platform.python_version()}, seed {SEED}")
    print(", ".join(f"{name} {_version(name)}" for name in packages))
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "riscv64-unknown-elf-gcc"):
        if shutil.which(tool):
            told = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
            print(told.stdout.splitlines()[0])


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "absent"


def _folders(arguments: argparse.Namespace) -> dict[str, Path] | None:
    """TFLM's checkouts, if they are named."""
    folders = {name: getattr(arguments, name) for name in FOLDERS}
    missing = [name for name in FOLDERS if folders[name] is None]
    if len(missing) == len(FOLDERS) - 1:  # objects have a default
        return None
    if missing:
        raise SystemExit(f"--tflm: {', '.join(missing)} must be named too; see tflm.py")
    folders = {name: folder.resolve() for name, folder in folders.items()}
    folders["objects"].mkdir(parents=True, exist_ok=True)
    return folders


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = ["gesture", "mnist", *(network.name for network in NETWORKS)]
    parser.add_argument("--models", nargs="+", choices=every, default=every)
    parser.add_argument("--tiny-inputs", type=int, default=20, help="inputs of MLPerf Tiny's")
    parser.add_argument(
        "--torch-padding", action="store_true", help="padding=1 at both ends, where SAME has one"
    )
    for flag in ("--tflm", "--cmsis-nn", "--cmsis", "--gemmlowp", "--flatbuffers", "--ruy"):
        parser.add_argument(flag, type=Path, help="a checkout, see tflm.py")
    kept = Path(tempfile.gettempdir()) / "tflm-objects"
    parser.add_argument("--objects", type=Path, default=kept, help="TFLM's, compiled")
    parser.add_argument("--gesture", type=Path, help="a run whose weights to take")
    parser.add_argument("--mnist", type=Path, help="a run whose weights to take")
    parser.add_argument("--inputs", type=int, default=400, help="held-out inputs, random")
    parser.add_argument("--emx", default="emx-onnx-cgen", help="the peer's program")
    return parser.parse_args()


if __name__ == "__main__":
    main()
