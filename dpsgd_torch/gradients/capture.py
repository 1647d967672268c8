"""What each layer saw in one pass: its inputs, and the graph's edge at its output.

A gradient is asked for at that edge, not at the output tensor: an operation in place gives the
tensor another place in the graph, and its gradient is then that of something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map_only

from dpsgd_torch.data.trees import Tree, call, length
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.losses import Loss


@dataclass
class Use:
    """One call of one layer, its arguments detached; ``edge`` is where its output's gradient is.

    ``versions`` say how often each argument was written to.
    """

    layer: Any
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    edge: GradientEdge
    versions: list[tuple[torch.Tensor, int]]

    @property
    def x(self) -> torch.Tensor:
        """The first argument."""
        return next(iter((*self.args, *self.kwargs.values())))

    def refuse_overwritten(self) -> None:
        """Refuse a pass that wrote over what this layer had seen."""
        if any(tensor._version != version for tensor, version in self.versions):
            raise ModelError(
                f"{described(self.path, self.layer)}: its input is written over in place after "
                "it was used, so its gradient cannot be told; make that operation out of place"
            )


class Capture:
    """Forward hooks on ``layers`` that keep every use of them in a pass.

    * Row i of whatever a layer sees must be example i: a tensor with another number of rows than
      the pass has examples is refused, by the layer's path, in every pass.
    """

    def __init__(self, layers: Mapping[nn.Module, str]) -> None:
        self._paths, self._examples = layers, -1
        self.uses: list[Use] = []
        self._hooks = [
            layer.register_forward_hook(self._keep, with_kwargs=True) for layer in layers
        ]

    def losses(
        self, model: nn.Module, loss: Loss, inputs: Tree, targets: Tree
    ) -> tuple[torch.Tensor, list[Use]]:
        """Run a forward pass: the sum of its losses, and every use that the layers had in it."""
        self.uses, self._examples = [], length(inputs)
        try:
            total = loss(call(model, inputs), targets).sum()
        finally:
            uses, self.uses, self._examples = self.uses, [], -1
        return total, uses

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if self._examples < 0 or not torch.is_grad_enabled():
            return
        path = self._paths[layer]
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"{described(path, layer)}: returns {type(output).__name__}, not one tensor, so "
                f"it has no per-example gradients here{advice(layer)}"
            )
        if not output.requires_grad:
            return
        seen = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        for tensor in (*seen, output):
            if tensor.ndim == 0 or tensor.shape[0] != self._examples:
                self._refuse_rows(path, layer, tensor)
        if not seen:
            raise ModelError(
                f"{described(path, layer)}: is given no tensor of examples; give it one, or "
                "freeze it by requires_grad_(False)"
            )
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
        kept = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        versions = [(tensor, tensor._version) for tensor in kept]
        self.uses.append(Use(layer, path, args, kwargs, get_gradient_edge(output), versions))

    def _refuse_rows(self, path: str, layer: nn.Module, tensor: torch.Tensor) -> None:
        raise ModelError(
            f"{described(path, layer)}: a tensor of shape {tuple(tensor.shape)} comes in or goes "
            f"out where the batch has {self._examples} examples: its rows are not the examples, "
            "so no clip would bound one of them; keep the examples as the first dimension "
            f"throughout (views and steps of one example in another; what all share, such as "
            f"positions, expanded to the batch){advice(layer)}"
        )


def leaves_beside(total: torch.Tensor, uses: Iterable[Use]) -> set[torch.Tensor]:
    """What ``total`` is computed from other than through the outputs of the layers used.

    >>> layer, x = nn.Linear(2, 1), torch.ones(1, 2)
    >>> leaves_beside(layer(x).sum() + layer.weight.square().sum(), []) == {*layer.parameters()}
    True
    """
    edges = [use.edge for use in uses]
    seen, found = {edge.node for edge in edges}, set[torch.Tensor]()
    nodes = [total.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        nodes += [following for following, _ in node.next_functions]
    return found


def described(path: str, layer: nn.Module) -> str:
    """A layer's path and type, as messages begin with.

    >>> described("0.fc", nn.Linear(2, 2)), described("", nn.ReLU())
    ('layer 0.fc = Linear', 'model = ReLU')
    """
    return f"{f'layer {path}' if path else 'model'} = {type(layer).__name__}"


def by_layer(model: nn.Module, error: ModelError) -> ModelError:
    """An error that begins with a parameter's name, beginning with its layer's path and type.

    >>> print(by_layer(nn.Sequential(nn.Linear(2, 2)), ModelError("parameter 0.bias: is odd")))
    layer 0 = Linear: bias: is odd
    """
    said = str(error)
    for name, _ in model.named_parameters():
        if said.startswith(f"parameter {name}: "):
            path, _, own = name.rpartition(".")
            rest = said.removeprefix(f"parameter {name}: ")
            return ModelError(f"{described(path, model.get_submodule(path))}: {own}: {rest}")
    return error


def mixing(of: str) -> ModelError:
    """What to say of examples that are no islands.

    >>> str(mixing("parameter fc.weight:"))[:59]
    "parameter fc.weight: one example's gradient changes with an"
    """
    return ModelError(
        f"{of} one example's gradient changes with another example; remove what works across the "
        "batch (statistics, attention, contrastive terms)"
    )


def advice(layer: nn.Module) -> str:
    """What to use instead of a recurrent or attention layer; nothing for any other."""
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return "; pass gradients='graph', or use opacus.layers.DPLSTM, DPGRU or DPRNN"
    if isinstance(layer, nn.MultiheadAttention):
        return "; pass gradients='graph', or use opacus.layers.DPMultiheadAttention"
    return ""
