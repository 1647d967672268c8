"""What integers cost in accuracy, and what it is worth where the ranges come from.

Takes the folder of a finished run and its whole test set. "private" is there to compare with: such
a file holds numbers from training records that ε does not cover.

    python -m dpsgd_torch.train --out runs/mnist && python benchmarks/int8_accuracy.py runs/mnist
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from dpsgd_torch.app.export.source import float_outputs, load_data, read_run
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.registry import public_inputs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--data-dir", type=Path, help="where the run's data lies")
    options = parser.parse_args()
    source = read_run(options.run)
    task = load_data(source, options.data_dir)
    inputs, targets = task.test
    model = to_onnx(source.model, source.input_shape, source.provenance)
    answers = {"float32": float_outputs(source, inputs).numpy()}
    calibrations = {
        "int8, intervals alone": None,
        "int8, made-up inputs (default)": public_inputs(source.config)(400).numpy(),
        "int8, private records": task.train[0][:400].numpy(),
    }
    for name, seen in calibrations.items():
        program = compile_model(model, input_range=source.input_range, public_inputs=seen)
        quantized = program.quantize(to_channels_last(inputs.numpy()))
        answers[name] = run(program, quantized).reshape(len(inputs), -1)
    print(f"torch {version('torch')}, {source.config.preset}, {len(inputs)} test examples\n")
    print(f"{'':32}accuracy  same answer as float32")
    norm = answers["float32"].argmax(axis=1)
    for name, outputs in answers.items():
        right = (outputs.argmax(axis=1) == targets.numpy()).mean()
        print(f"{name:32}{right:8.4f}  {(outputs.argmax(axis=1) == norm).mean():.4f}")


if __name__ == "__main__":
    main()
