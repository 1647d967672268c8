"""What integers cost in accuracy, and what each way to better ranges and weights is worth.

With the folder of a finished run: its whole test set, and where ranges come from. "private" is
there to compare with: such a file holds numbers from training records that ε does not cover.

    python -m dpsgd_torch.train --out runs/mnist && python benchmarks/int8_accuracy.py runs/mnist

With presets: each is trained at ε = 8 (or was, where its folder in --runs is finished), and its
int8, by default ranges and by improved ones, is held beside float32 on examples made up for that.

    python benchmarks/int8_accuracy.py --presets keyword-spotting wake-words image-classification

With neither: small networks trained on made-up data, three seeds each, and every pass of
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
from gestures import finished, told_machine
from int8_nets import KINDS, Kind, trained

from dpsgd_torch.app.export.source import Source, float_outputs, load_data, read_run
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.export.calibration.passes import PLAIN, Calibration, calibration_of
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.registry import kind_of, public_inputs
from dpsgd_torch.tasks.task import Pair

PASSES = {
    "int8 (default)": PLAIN,
    "equalised": Calibration(equalize=True),
    "bias corrected": Calibration(correct_bias=True),
    "least-error ranges": Calibration(reach="least-error"),
    "percentile ranges": Calibration(reach="percentile"),
    "improved": calibration_of("improved"),
    "all": calibration_of("all"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--data-dir", type=Path, help="where the run's data lies")
    parser.add_argument("--held-out", type=int, help="made-up examples instead of its test set")
    parser.add_argument("--presets", nargs="+", default=[], help="to train, if --runs has none")
    parser.add_argument("--norm", help="of those presets; default: each one's own")
    parser.add_argument("--seed", type=int, default=1, help="that they are trained with")
    parser.add_argument("--calibration", nargs="+", default=["plain", "improved"], help="theirs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of their folders")
    parser.add_argument("--seeds", type=int, default=3, help="of each small network")
    parser.add_argument("--only", default="", help="small networks whose name begins so")
    options = parser.parse_args()
    if options.run:
        of_run(options.run, options.data_dir, options.held_out)
        return
    if options.presets:
        of_presets(options)
        return
    print(f"torch {version('torch')}; points right of 100, mean over {options.seeds} seeds, and")
    print("the mean (least, most) difference of int8 from float32\n")
    for kind in KINDS:
        if kind.name.startswith(options.only):
            of_kind(kind, options.seeds)


def of_run(folder: Path, data_dir: Path | None, held_out: int | None) -> None:
    """Where the ranges of a run's export come from."""
    source = read_run(folder)
    task = load_data(source, data_dir)
    inputs, targets = drawn(source, held_out) if held_out else task.test
    model = to_onnx(source.model, source.input_shape, source.provenance)
    floats = float_outputs(source, inputs).numpy()
    made_up = public_inputs(source.config)(400).numpy()
    private = task.train[0][:400].numpy()
    calibrations = {
        "int8, intervals alone": (None, PLAIN),
        "int8, made-up inputs (default)": (made_up, PLAIN),
        **{f"int8, {name}": (made_up, each) for name, each in list(PASSES.items())[1:]},
        "int8, private records": (private, PLAIN),
    }
    print(f"torch {version('torch')}, {source.config.preset}, {len(inputs)} test examples\n")
    print(f"{'':34}{HEADING}\n{'float32':34}{accuracy(floats, targets):8.2%}")
    for name, (seen, calibration) in calibrations.items():
        ints = integers(model, source.input_range, seen, calibration, inputs)
        print(f"{name:34}{compared(floats, ints, targets)}", flush=True)


def of_presets(options: argparse.Namespace) -> None:
    """Each preset's int8 beside its float32."""
    count = options.held_out or 2000
    told_machine(None)
    print(f"{count} made-up examples held out; ranges from 400 made up without them\n")
    print(f"{'':48}float32   {HEADING}")
    for preset in options.presets:
        task = PRESETS[preset]().config.task
        norm = options.norm or task.norm  # type: ignore[attr-defined]
        folder = options.runs / f"{preset}-{norm}-{options.seed}"
        if not (folder / "report.html").exists():
            finished(preset, {"epsilon": 8.0, "norm": norm}, options.seed, None, folder)
        source = read_run(folder)
        inputs, targets = drawn(source, count)
        model = to_onnx(source.model, source.input_shape, source.provenance)
        floats = np.concatenate([float_outputs(source, part).numpy() for part in inputs.split(100)])
        made_up, right = public_inputs(source.config)(400).numpy(), accuracy(floats, targets)
        for way in options.calibration:
            ints = integers(model, source.input_range, made_up, calibration_of(way), inputs)
            name = f"{preset}, norm {norm}, {way}"
            print(f"{name:48}{right:7.2%}  {compared(floats, ints, targets)}", flush=True)


def drawn(source: Source, count: int) -> Pair:
    """Examples made up by another seed than those that it was trained and tested on."""
    task = kind_of(source.config.dataset).made_up(source.config.task, 12, count)
    assert task.test
    return task.test


HEADING = "    int8  points off, standard error  same answer"


def compared(floats: np.ndarray, ints: np.ndarray, targets: torch.Tensor) -> str:
    """Accuracy of integers, and their difference from floats on the same examples."""
    right = [outputs.argmax(axis=1) == targets.numpy() for outputs in (floats, ints)]
    off = 100 * (right[1].astype(float) - right[0])
    error = off.std(ddof=1) / len(off) ** 0.5
    same = (floats.argmax(axis=1) == ints.argmax(axis=1)).mean()
    return f"{right[1].mean():8.2%}  {off.mean():+10.2f} ± {error:.2f}{same:21.2%}"


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
    parts = [
        run(program, program.quantize(to_channels_last(part.numpy()))) for part in inputs.split(100)
    ]
    return np.concatenate(parts).reshape(len(inputs), -1)


def accuracy(outputs: np.ndarray, targets: torch.Tensor) -> float:
    return float((outputs.argmax(axis=1) == targets.numpy()).mean())


if __name__ == "__main__":
    main()
