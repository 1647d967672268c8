"""Cycles an instruction of a Cortex-M0+, by the core's table, over the code of exported runs.

Memory never waits here: what a chip waits for its flash comes on top.

    python benchmarks/m0_cycles.py runs/GESTURE runs/MNIST
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from dpsgd_torch.app.export.source import read_run
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.m0_cycles import cycles_m0
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.registry import public_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    for folder in parser.parse_args().runs:
        source = read_run(folder)
        graph: onnx.ModelProto = to_onnx(source.model, source.input_shape, {})
        made_up = public_inputs(source.config)(256).numpy()
        program = compile_model(graph, input_range=source.input_range, public_inputs=made_up)
        cycles, instructions = cycles_m0(program)
        told = f"{cycles:,} cycles ÷ {instructions:,} instructions = {cycles / instructions:.2f}"
        print(f"{source.config.preset}: {told}")


if __name__ == "__main__":
    main()
