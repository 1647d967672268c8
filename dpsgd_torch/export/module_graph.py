"""Any module's ONNX graph: of a copy in evaluation mode, shown to compute what the module does."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import onnx
import torch
from torch import nn

from dpsgd_torch.errors import ExportError, told
from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.dropped import refuse_dropped
from dpsgd_torch.export.dropped_calls import refuse_dropped_calls
from dpsgd_torch.export.to_onnx import refuse_difference, to_onnx
from dpsgd_torch.quantization import plain_of

_COMPARED = 32  # inputs


def module_graph(
    model: nn.Module, declared: Declared, provenance: Mapping[str, str], inputs: torch.Tensor
) -> tuple[nn.Module, onnx.ModelProto, float]:
    """The copy, its graph for one example, and how far onnxruntime is from it.

    Raises:
        ExportError: the model does not take such inputs, or torch cannot export it, or what was
            written computes something else.
    """
    evaluated = _copied(model)
    try:
        with torch.no_grad():
            answer = evaluated(inputs[:2])
    except Exception as error:  # the user's own code
        raise ExportError(
            f"input_shape = {declared.input_shape}: the model raises on such inputs "
            f"({told(error)}); declare the shape of one example, and in float32"
        ).with_traceback(error.__traceback__) from None
    if not isinstance(answer, torch.Tensor) or answer.shape[:1] != inputs[:2].shape[:1]:
        raise ExportError(
            f"model = {type(model).__name__}: answers {_kind(answer)} to two examples; return one "
            "tensor whose first dimension is the batch"
        )
    if not torch.isfinite(answer).all():
        raise ExportError(
            f"model = {type(model).__name__}: answers what is no number; train it again with a "
            "lower learning rate"
        )
    refuse_dropped(evaluated, inputs[:2])
    refuse_dropped_calls(evaluated, inputs[:2])
    graph = to_onnx(evaluated, declared.input_shape, provenance)
    declared.refuse_other_outputs(math.prod(answer.shape[1:]))
    return evaluated, graph, refuse_difference(graph, evaluated, inputs[:_COMPARED])


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(plain_of(model)).to("cpu", torch.float32).eval()
    except Exception as error:  # the user's own code
        raise ExportError(
            f"model = {type(model).__name__}: cannot be copied ({told(error)}), and the model "
            "itself is left as it is; keep tensors that have a history out of its attributes"
        ).with_traceback(error.__traceback__) from None


def _kind(answer: object) -> str:
    if isinstance(answer, torch.Tensor):
        return f"a tensor of shape {tuple(answer.shape)}"
    return f"a {type(answer).__name__}"
