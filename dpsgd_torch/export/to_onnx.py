"""The model as an ONNX file that says where it comes from, and nothing of the machine it was on."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.errors import ExportError, told

OPSET = 20
TOLERANCE = 1e-5


def to_onnx(
    model: nn.Module, input_shape: tuple[int, ...], provenance: Mapping[str, str]
) -> onnx.ModelProto:
    """Export by torch, for one example, stripped of paths and stack traces.

    Args:
        model: in evaluation mode.
        input_shape: of one example.
        provenance: what ``metadata_props`` shall hold.

    Raises:
        ExportError: torch cannot export the model, or what it wrote is not valid.

    >>> written = to_onnx(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval(), (2,), {"run": "r1"})
    >>> [node.op_type for node in written.graph.node], written.metadata_props[0].value
    (['Gemm', 'Relu'], 'r1')
    """
    example = torch.zeros(1, *input_shape)
    try:
        with _silence():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
        assert program is not None
        written = program.model_proto
        strip(written)
        for key, value in provenance.items():
            written.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(written, full_check=True)
    except (ImportError, torch.onnx.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"model = {type(model).__name__}: cannot be written as ONNX "
            f"({told(_cause(error))}); pip install 'dpsgd_torch[export]', or use layers "
            "that torch.onnx knows"
        ) from error
    return written


def _cause(error: BaseException) -> BaseException:
    """What torch's exporter wraps in advice of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch talks of its own deprecations, and of steps that nobody waits for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def strip(written: onnx.ModelProto) -> None:
    """Remove what torch notes of its own work, in place: absolute paths are in it."""
    graph = written.graph
    for part in (written, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    graph.name = "model"
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    _name_values(graph)


def _name_values(graph: onnx.GraphProto) -> None:
    """Constants of torch's making get names that say what they are."""
    names: dict[str, str] = {}
    for tensor in graph.initializer:
        if "." not in tensor.name:
            names[tensor.name] = f"constant_{len(names)}"
            tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def refuse_difference(written: onnx.ModelProto, model: nn.Module, inputs: torch.Tensor) -> float:
    """How far onnxruntime is from the truth, the same model in float64.

    Relative to an example's largest output, or to 1. Noisy weights can cancel so much of what lies
    between that float32 itself is further off than ``TOLERANCE``: then four times as far as torch.
    Each norm of activations may add as much again: onnxruntime's are off by more than torch's where
    what they divide by is small.

    Raises:
        ExportError: it is further.
    """
    given = answers(written, inputs)
    with torch.no_grad():
        torchs = model(inputs).double().numpy()
        exact = _in_float64(model, inputs)
    given, torchs, exact = (x.reshape(len(inputs), -1) for x in (given, torchs, exact))
    size = np.maximum(np.abs(exact).max(axis=1, keepdims=True), 1)
    theirs, ours = (float((np.abs(x - exact) / size).max()) for x in (given, torchs))
    norms = sum(node.op_type.endswith("Normalization") for node in written.graph.node)
    allowed = TOLERANCE * max(1, norms)
    if not theirs <= max(allowed, 4 * ours):
        raise ExportError(
            f"onnx: onnxruntime is {theirs:.1e} from float64, more than {allowed:g}, and torch "
            f"{ours:.1e}; report it: nothing was written"
        )
    return theirs


def answers(written: onnx.ModelProto, inputs: torch.Tensor) -> NDArray[Any]:
    """(batch, …): what onnxruntime makes of each example by itself."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        written.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.stack([session.run(None, {"input": row[None].numpy()})[0][0] for row in inputs])


def _in_float64(model: nn.Module, inputs: torch.Tensor) -> NDArray[Any]:
    """The model's answers, in float32 where its code holds numbers of no other kind."""
    try:
        return np.asarray(copy.deepcopy(model).double()(inputs.double()).numpy())
    except RuntimeError:
        return np.asarray(model(inputs).double().numpy())
