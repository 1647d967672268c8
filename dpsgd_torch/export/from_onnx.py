"""ONNX → the graph of float layers, channels last; what cannot be carried is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError, told
from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Graph
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.reading import (
    activations,
    constants,
    curves,
    joins,
    linear,
    means,
    moves,
    norms,
    order,
    shapes,
    transposed,
    windows,
)
from dpsgd_torch.export.reading.folding import folded
from dpsgd_torch.export.reading.instead import instead_of
from dpsgd_torch.export.reading.reader import READERS, Reader, called, refuse
from dpsgd_torch.export.reading.tidy import tidied
from dpsgd_torch.export.reading.values import channels_last as to_channels_last

__all__ = ["from_onnx", "in_memory", "to_channels_last"]

FAMILIES = (activations, joins, linear, means, moves, norms, shapes, transposed, windows)
"""The modules whose readers are registered by being imported."""

_NO_ONNX = (
    ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError
)  # fmt: skip


def in_memory(inputs: NDArray[Any], of: Graph | Program) -> NDArray[Any]:
    """Inputs in ONNX's layout, (batch, …), in that of a graph or program."""
    if not of.as_given:
        return to_channels_last(inputs)
    shape = of.shapes[0] if isinstance(of, Graph) else of.input.shape
    return np.ascontiguousarray(inputs).reshape(-1, *shape)


def from_onnx(model: onnx.ModelProto) -> Graph:
    """The model as a graph of layers on one example.

    Channels come last here and first in ONNX: kernels are transposed, and the columns of the
    first linear layer after a Flatten permuted, so that nothing is left to transpose at run time.
    A line of (channels, length) is a picture one cell high.

    Raises:
        ExportError: an operator, attribute or shape that cannot be carried further.
    """
    with _as_refusal("model"):
        reader = Reader(model)
    for node in model.graph.node:
        with _as_refusal(called(node)):
            _read(reader, node)
    if reader.end in reader.pending:
        curves.settled(reader, reader.end)
    if reader.end in reader.values and model.graph.node:
        order.last(reader, model.graph.node[-1])
    return fold_affine(tidied(reader.finish()))


def _read(reader: Reader, node: onnx.NodeProto) -> None:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if folded(reader, node, attributes):
        return
    constants.refuse_more_axes(reader, node)
    if curves.drawn(reader, node, attributes):
        return
    for name in node.input:
        if name in reader.pending:
            curves.settled(reader, name)
    taken = norms.scaled(reader, node)
    if taken is not None:
        reader.values[node.output[0]] = taken
        return
    curves.noted(reader, node)
    if node.op_type not in READERS or node.domain not in ("", "ai.onnx"):
        known = f"known are {', '.join(sorted(READERS))}"
        refuse(node, f"cannot be carried further{instead_of(node.op_type)}; {known}")
    reader.values[node.output[0]] = READERS[node.op_type](reader, node, attributes)


@contextlib.contextmanager
def _as_refusal(name: str) -> Iterator[None]:
    """Inputs, attributes or shapes that no ONNX operator has, as damaged files hold them."""
    try:
        yield
    except _NO_ONNX as error:
        raise ExportError(
            f"{name}: is no valid ONNX ({told(error)}); onnx.checker.check_model says more"
        ) from error
