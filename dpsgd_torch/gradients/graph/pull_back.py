"""From what is made of parameters alone back to the parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from dpsgd_torch.gradients.graph.chosen import chosen
from dpsgd_torch.gradients.graph.rules.inputs import input_shape, signed
from dpsgd_torch.gradients.graph.walk import ACCUMULATE, SAME_ORDER, Edge
from dpsgd_torch.gradients.parts import Part, Written, summed


def pull_back(
    received: dict[Edge, list[Part]],
    shared: Mapping[Any, tuple[str, ...]],
    params: Mapping[str, nn.Parameter],
) -> dict[str, Part]:
    """Parts of shared nodes' outputs → parts of the parameters, by name.

    Args:
        received: by node and output; emptied.
        shared: of which parameters each node is made, children first.
    """
    found: dict[str, list[Part]] = {}
    by_node: dict[Any, dict[int, list[Part]]] = {}
    for (node, output), parts in received.items():
        by_node.setdefault(node, {})[output] = parts
    received.clear()
    for node, names in reversed(list(shared.items())):
        for output, parts in by_node.pop(node, {}).items():
            part = summed(parts)
            if node.name() == ACCUMULATE:
                found.setdefault(names[0], []).append(part)
                continue
            cheap = _reshaped(node, part)
            if cheap is not None:
                child, place = node.next_functions[0]
                by_node.setdefault(child, {}).setdefault(place, []).append(cheap)
                continue
            for name, written in _through(node, output, part, names, params):
                found.setdefault(name, []).append(written)
    return {name: summed(parts) for name, parts in found.items()}


def _reshaped(node: Any, part: Part) -> Part | None:
    """Of a tensor that the node only gives another shape, or chooses rows of."""
    name = node.name()
    if node.next_functions[0][0] is None:
        return None
    shape = input_shape(node, 0)
    if name == "TBackward0" or (name == "TransposeBackward0" and len(shape) == 2):
        turned = name == "TBackward0" or (node._saved_dim0 - node._saved_dim1) % 2
        return part.transposed() if len(shape) == 2 and turned else part
    if name == "PermuteBackward0":
        back = torch.tensor([signed(dim) % len(shape) for dim in node._saved_dims]).argsort()
        return Written(part.written().permute(0, *(1 + back).tolist()))
    return part.viewed(shape) if name in SAME_ORDER else chosen(node, part, shape)


def _through(
    node: Any,
    output: int,
    part: Part,
    names: tuple[str, ...],
    params: Mapping[str, nn.Parameter],
) -> list[tuple[str, Part]]:
    """By autograd, all rows at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        gradients = torch.autograd.grad(
            [GradientEdge(node, output)],
            [params[name] for name in names],
            grad_outputs=[part.written()],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
    pairs = zip(names, gradients, strict=True)
    return [(name, Written(gradient)) for name, gradient in pairs if gradient is not None]
