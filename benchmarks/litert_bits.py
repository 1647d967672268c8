"""How many int8 outputs LiteRT's kernels tell otherwise than TensorFlow Lite Micro's.

    python benchmarks/litert_bits.py write FOLDER      files, inputs, and what tflite-micro answers
    python benchmarks/litert_bits.py compare FOLDER    where ai-edge-litert is installed alone

About a minute; the second needs neither torch nor this project.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 400
UNIT = 1 / 16
VALID = 1  # Padding


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _networks(folder)
    _pools_and_means(folder)
    _elementwise(folder)


def _save(folder: Path, name: str, content: bytes, inputs: Any) -> None:
    from dpsgd_torch.export.tflm import interpret

    (folder / f"{name}.tflite").write_bytes(content)
    np.savez(folder / f"{name}.npz", inputs=inputs, told=interpret(content, inputs))
    print(name, flush=True)


def _networks(folder: Path) -> None:
    import torch
    from torch import nn

    from dpsgd_torch.app.presets import PRESETS
    from dpsgd_torch.export import export_model
    from dpsgd_torch.tasks.registry import kind_of

    for preset, low, high in (("gesture", -1.0, 1.0), ("mnist-tutorial", 0.0, 1.0)):
        config = PRESETS[preset]().config
        task = kind_of(config.dataset).made_up(config.task, 2000, COUNT)
        torch.manual_seed(0)
        model = task.make_model(torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        inputs, targets = task.train
        for _ in range(6):
            for rows in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
                optimizer.step()
        shape = tuple(inputs.shape[1:])
        with tempfile.TemporaryDirectory() as where:
            export_model(
                model, input_shape=shape, input_range=(low, high), to="tflite", int8=True, out=where
            )
            content = next(Path(where).glob("*.tflite")).read_bytes()
        given = task.test[0].numpy()
        given = given.transpose(0, 2, 3, 1) if given.ndim == 4 else given
        codes = np.round((given - low) * 255 / (high - low)) - 128  # the declared range
        _save(folder, f"{preset}-network", content, codes.astype(np.int8))


def _one(
    folder: Path, name: str, operator: str, options: str, inputs: Any, shape: tuple[int, ...],
    unit: float = UNIT, zero_point: int = 0, given: float = UNIT, others: Any = (), **fields: Any,
) -> None:  # fmt: skip
    from dpsgd_torch.export.tflite_file import TfliteFile

    file = TfliteFile()
    quantized = {"scale": given, "zero_point": 0} if inputs.dtype == np.int8 else {}
    first = file.value("in", inputs.shape[1:], inputs.dtype, **quantized)
    constants = [file.constant(f"c{i}", values, **more) for i, (values, more) in enumerate(others)]
    last = file.value("out", shape, np.int8, scale=unit, zero_point=zero_point)
    file.operator(operator, [first, *constants], last, options, **fields)
    _save(folder, name, file.content(first, last, {}), inputs)


def _pools_and_means(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 4, 8, 16, 20):
        for window in (2, 3, 8):
            inputs = rng.integers(-128, 128, (COUNT, 2 * window, 2 * window, channels))
            fields = dict.fromkeys(("strideW", "strideH", "filterWidth", "filterHeight"), window)
            _one(folder, f"average_pool_{window}x{window}-{channels}", "AVERAGE_POOL_2D",
                 "Pool2DOptions", inputs.astype(np.int8), (2, 2, channels), padding=VALID,
                 **fields)  # fmt: skip
            inputs = rng.integers(-128, 128, (COUNT, window, window, channels))
            _one(folder, f"mean_{window}x{window}-{channels}", "MEAN", "ReducerOptions",
                 inputs.astype(np.int8), (channels,),
                 others=[(np.array([1, 2], np.int32), {})], keepDims=False)  # fmt: skip
    for classes in (2, 5, 10, 16, 33):
        inputs = rng.integers(-128, 128, (COUNT, classes)).astype(np.int8)
        _one(folder, f"softmax-{classes}", "SOFTMAX", "SoftmaxOptions", inputs, (classes,),
             unit=1 / 256, zero_point=-128, given=0.2, beta=1.0)  # fmt: skip


def _elementwise(folder: Path) -> None:
    rng = np.random.default_rng(0)
    every = np.arange(-128, 128).astype(np.int8)[None]
    _one(folder, "tanh-256", "TANH", "", every, (256,), unit=1 / 128)
    _one(folder, "logistic-256", "LOGISTIC", "", every, (256,), unit=1 / 256, zero_point=-128)
    _one(folder, "int8_to_int8-256", "QUANTIZE", "", every, (256,), unit=0.07)
    halves = (np.arange(-256, 256)[None] * UNIT / 2).astype(np.float32)
    _one(folder, "float_to_int8_halves-512", "QUANTIZE", "", halves, (512,))
    normal = rng.normal(0, 3, (COUNT, 512)).astype(np.float32)
    _one(folder, "float_to_int8_normal-512", "QUANTIZE", "", normal, (512,))
    inputs = rng.integers(-128, 128, (COUNT, 256)).astype(np.int8)
    other = rng.integers(-128, 128, (1, 256)).astype(np.int8), {"scale": 1 / 20, "zero_point": 3}
    for operator in ("ADD", "MUL"):
        _one(folder, f"{operator.lower()}-256", operator, f"{operator.title()}Options", inputs,
             (256,), unit=1 / 9, zero_point=-2, others=[other])  # fmt: skip


def compare(folder: Path) -> None:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = {
        "reference": OpResolverType.BUILTIN_REF,
        "optimised": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "XNNPACK": OpResolverType.BUILTIN,
    }
    table: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.tflite")):
        with np.load(path.with_suffix(".npz")) as stored:
            inputs, told = stored["inputs"], stored["told"]
        row = table.setdefault(path.stem.rpartition("-")[0], [0] * 5)
        row[0] += told.size
        for place, kind in enumerate(kinds.values(), start=1):
            interpreter = Interpreter(str(path), experimental_op_resolver_type=kind, num_threads=1)
            interpreter.allocate_tensors()
            first = interpreter.get_input_details()[0]["index"]
            last = interpreter.get_output_details()[0]["index"]
            for given, expected in zip(inputs, told, strict=True):
                interpreter.set_tensor(first, given[None])
                interpreter.invoke()
                apart = np.abs(interpreter.get_tensor(last)[0].astype(int) - expected)
                row[place] += int(np.count_nonzero(apart))
                row[4] = max(row[4], int(apart.max()))
    print(f"ai-edge-litert {version('ai-edge-litert')}: outputs that differ from tflite-micro's")
    print(f"{'':22}{'outputs':>9}" + "".join(f"{name:>11}" for name in [*kinds, "most"]))
    for name, (count, *apart) in table.items():
        print(f"{name:22}{count:9,}" + "".join(f"{value:11,}" for value in apart))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    {"write": write, "compare": compare}[asked.what](asked.folder)


if __name__ == "__main__":
    main()
