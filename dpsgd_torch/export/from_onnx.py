"""ONNX → the graph of float layers, channels last; what cannot be carried is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx

from dpsgd_torch.errors import ExportError, told
from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Graph
from dpsgd_torch.export.reading import activations, joins, linear, means, norms, shapes, windows
from dpsgd_torch.export.reading.folding import folded
from dpsgd_torch.export.reading.instead import instead_of
from dpsgd_torch.export.reading.reader import READERS, Reader, called, refuse
from dpsgd_torch.export.reading.values import channels_last as to_channels_last

__all__ = ["from_onnx", "to_channels_last"]

FAMILIES = (activations, joins, linear, means, norms, shapes, windows)
"""The modules whose readers are registered by being imported."""

_NO_ONNX = (
    ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError
)  # fmt: skip


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
    return fold_affine(reader.finish())


def _read(reader: Reader, node: onnx.NodeProto) -> None:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if folded(reader, node, attributes):
        return
    taken = norms.scaled(reader, node)
    if taken is not None:
        reader.values[node.output[0]] = taken
        return
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
