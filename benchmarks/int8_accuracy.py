"""What integers cost in accuracy, and what each way to better ranges and weights is worth.

With the folder of a finished run: its whole test set, and where ranges come from. "private" is
there to compare with: such a file holds numbers from training records that ε does not cover.

    python -m dpsgd_torch.train --out runs/mnist && python benchmarks/int8_accuracy.py runs/mnist

Without one: small networks trained on made-up data, three seeds each, and every pass of
dpsgd_torch.export.calibration alone, beside quantisation-aware training; in some minutes.

    python benchmarks/int8_accuracy.py
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from int8_nets import KINDS, Kind, trained

from dpsgd_torch.app.export.source import float_outputs, load_data, read_run
from dpsgd_torch.export.calibration.passes import PLAIN, Calibration
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.registry import public_inputs

PASSES = {
    "int8 (default)": PLAIN,
    "equalised": Calibration(equalize=True),
    "bias corrected": Calibration(correct_bias=True),
    "least-error ranges": Calibration(reach="least-error"),
    "percentile ranges": Calibration(reach="percentile"),
    "equalised, bias corrected": Calibration(equalize=True, correct_bias=True),
    "all three": Calibration(equalize=True, correct_bias=True, reach="percentile"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--data-dir", type=Path, help="where the run's data lies")
    parser.add_argument("--seeds", type=int, default=3, help="of each small network")
    parser.add_argument("--only", default="", help="small networks whose name begins so")
    options = parser.parse_args()
    if options.run:
        of_run(options.run, options.data_dir)
        return
    print(f"torch {version('torch')}; points right of 100, mean over {options.seeds} seeds, and")
    print("the mean (least, most) difference of int8 from float32\n")
    for kind in KINDS:
        if kind.name.startswith(options.only):
            of_kind(kind, options.seeds)


def of_run(folder: Path, data_dir: Path | None) -> None:
    """Where the ranges of a run's export come from."""
    source = read_run(folder)
    task = load_data(source, data_dir)
    inputs, targets = task.test
    model = to_onnx(source.model, source.input_shape, source.provenance)
    answers = {"float32": float_outputs(source, inputs).numpy()}
    made_up = public_inputs(source.config)(400).numpy()
    private = task.train[0][:400].numpy()
    calibrations = {
        "int8, intervals alone": (None, PLAIN),
        "int8, made-up inputs (default)": (made_up, PLAIN),
        **{f"int8, {name}": (made_up, each) for name, each in list(PASSES.items())[1:]},
        "int8, private records": (private, PLAIN),
    }
    for name, (seen, calibration) in calibrations.items():
        answers[name] = integers(model, source.input_range, seen, calibration, inputs)
    print(f"torch {version('torch')}, {source.config.preset}, {len(inputs)} test examples\n")
    print(f"{'':34}accuracy  same answer as float32")
    norm = answers["float32"].argmax(axis=1)
    for name, outputs in answers.items():
        right = (outputs.argmax(axis=1) == targets.numpy()).mean()
        print(f"{name:34}{right:8.4f}  {(outputs.argmax(axis=1) == norm).mean():.4f}")


def of_kind(kind: Kind, seeds: int) -> None:
    """One small network, each way to integers."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        for qat in (False, True):
            model, (inputs, targets) = trained(kind, seed, qat=qat)
            with torch.no_grad():
                right = accuracy(model(inputs).numpy(), targets)
            graph = to_onnx(model, tuple(inputs.shape[1:]), {})
            for name, calibration in {"trained --qat": PLAIN}.items() if qat else PASSES.items():
                seen = kind.made_up(32 if qat else 400).numpy()
                outputs = integers(graph, kind.input_range, seen, calibration, inputs)
                found.setdefault(name, []).append((right, accuracy(outputs, targets)))
    print(kind.name)
    for name, pairs in found.items():
        floats, ints = np.array(pairs).T * 100
        off = ints - floats
        told = f"{off.mean():+.2f} ({off.min():+.2f}, {off.max():+.2f})"
        print(f"  {name:28}float32 {floats.mean():6.2f}  int8 {ints.mean():6.2f}  {told}")
    print(flush=True)


def integers(
    model: onnx.ModelProto,
    input_range: tuple[float, float],
    seen: np.ndarray | None,
    calibration: Calibration,
    inputs: torch.Tensor,
) -> np.ndarray:
    program = compile_model(
        model, input_range=input_range, public_inputs=seen, calibration=calibration
    )
    quantized = program.quantize(to_channels_last(inputs.numpy()))
    return run(program, quantized).reshape(len(inputs), -1)


def accuracy(outputs: np.ndarray, targets: torch.Tensor) -> float:
    return float((outputs.argmax(axis=1) == targets.numpy()).mean())


if __name__ == "__main__":
    main()
