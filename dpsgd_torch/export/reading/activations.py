"""Functions of each value, and softmax."""

from __future__ import annotations

from typing import Literal

import onnx

from dpsgd_torch.export.graph import Activation
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value

_KINDS: dict[str, Literal["relu", "tanh", "logistic"]] = {
    "Relu": "relu",
    "Tanh": "tanh",
    "Sigmoid": "logistic",
}


@reads(*_KINDS)
def activation(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return reader.append_cell_by_cell(node, Activation(_KINDS[node.op_type]), reader.value(node))


@reads("Softmax")
def softmax(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    features = reader.shapes[value.tensor][-1]
    if len(value.shape) != 1 or attributes.get("axis", -1) not in (1, -1):
        refuse(node, "only over all features can it be carried")
    if features != value.shape[0]:
        refuse(node, f"over the {value.shape[0]} cells of an image; end with a linear layer")
    return reader.append_cell_by_cell(node, Activation("softmax"), value)
