"""ONNX → integer program: read, calibrate, quantize."""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.calibration.passes import PLAIN, Calibration
from dpsgd_torch.export.from_onnx import from_onnx, in_memory, to_channels_last
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.quantize import quantize

__all__ = ["compile_model", "in_memory", "to_channels_last"]


def compile_model(
    model: onnx.ModelProto,
    *,
    input_range: tuple[float, float],
    public_inputs: NDArray[Any] | None = None,
    labels: tuple[str, ...] = (),
    calibration: Calibration = PLAIN,
) -> Program:
    """The integer program of a model.

    Args:
        model: for one example.
        input_range: what every input value lies between, declared.
        public_inputs: (batch, …) in ONNX's layout, from which ranges of activations are read:
            whatever they are goes into the program, so they must not be private.
        labels: of the outputs.
        calibration: what is done to graph and ranges before.

    Raises:
        ExportError: something in the model that cannot be carried, by name.
    """
    graph = from_onnx(model)
    seen = None if public_inputs is None else in_memory(public_inputs, graph)
    graph, ranges = calibration(graph, input_range, seen)
    return quantize(graph, ranges, labels)
