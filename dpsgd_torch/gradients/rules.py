"""Per-example gradients of one layer from what it saw and the gradient at its output.

Opacus's grad samplers, with what they need put right around them; where there is none, or none
that is right, the layer is run again by itself under vmap.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers.dp_rnn import DPGRU, DPLSTM, DPRNN
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.utils import parametrize

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Use, advice, described

PerParameter = dict[Any, torch.Tensor]
_SAMPLERS: dict[type[nn.Module], Callable[..., PerParameter]] = GradSampleModule.GRAD_SAMPLERS
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MADE_OF_LAYERS = (DPRNN, DPLSTM, DPGRU)  # their parameters are those of layers inside


def layers_of(model: nn.Module) -> dict[nn.Module, str]:
    """The layers to watch, and their paths: together they own every trainable parameter.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Conv1d(1, 1, 1)))
    >>> list(layers_of(model).values())
    ['0', '2.0']
    """
    found: dict[nn.Module, str] = {}

    def visit(layer: nn.Module, path: str) -> None:
        lists = (c for c in layer.children() if isinstance(c, nn.ParameterList | nn.ParameterDict))
        own = any(
            p.requires_grad for held in (layer, *lists) for p in held.parameters(recurse=False)
        )
        whole = parametrize.is_parametrized(layer) and any(
            p.requires_grad for p in layer.parameters()
        )
        if (own or whole) and type(layer) not in _MADE_OF_LAYERS:
            found.setdefault(layer, path)
            if whole or type(layer) not in _SAMPLERS:
                return
        for name, child in layer.named_children():
            visit(child, f"{path}.{name}" if path else name)

    visit(model, "")
    for layer, path in found.items():
        _refuse_unknown(layer, path)
    return found


def per_example_gradients_of(use: Use, delta: torch.Tensor) -> PerParameter:
    """(rows, …) gradients of each trainable parameter of the layer."""
    layer = use.layer
    dtype = next(layer.parameters()).dtype  # norms are not rounded to half precision
    delta = delta.to(dtype).contiguous()
    if type(layer) not in _SAMPLERS or (isinstance(layer, nn.LayerNorm) and layer.bias is None):
        return _run_again(use, delta)
    x, sampled = use.x.contiguous(), layer
    x = x.to(dtype) if x.is_floating_point() else x
    if isinstance(layer, _CONVOLUTIONS) and layer.padding_mode != "zeros":
        x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        sampled = copy.copy(layer)  # the same parameters
        sampled.padding = (0,) * len(layer.kernel_size)
    if isinstance(layer, nn.Embedding):
        x = x.long()
    gradients = _SAMPLERS[type(layer)](sampled, [x], delta)
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        gradients[layer.weight][:, layer.padding_idx] = 0
    return gradients


def _run_again(use: Use, delta: torch.Tensor) -> PerParameter:
    layer = use.layer
    trainable = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    leaves, spec = torch.utils._pytree.tree_flatten((use.args, use.kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def weighted(
        parameters: dict[str, torch.Tensor], row: list[torch.Tensor], weight: torch.Tensor
    ) -> torch.Tensor:
        given = list(leaves)
        for i, tensor in zip(where, row, strict=True):
            given[i] = tensor.unsqueeze(0)
        args, kwargs = torch.utils._pytree.tree_unflatten(given, spec)
        output = functional_call(layer, parameters, args, kwargs)
        return (output * weight.unsqueeze(0)).sum()

    rows = [leaves[i].to(delta.dtype) if _is_half(leaves[i]) else leaves[i] for i in where]
    values = {name: p.detach() for name, p in trainable.items()}
    try:
        gradients = vmap(grad(weighted), in_dims=(None, 0, 0))(values, rows, delta)
    except RuntimeError as error:
        raise ModelError(
            f"{described(use.path, layer)}: holds parameters of its own and cannot be run one "
            "example at a time (it draws random numbers, decides by values or writes in place); "
            f"keep those parameters in a small module that does none of this{advice(layer)}"
        ) from error
    return {p: gradients[name] for name, p in trainable.items()}


def _is_half(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _refuse_unknown(layer: nn.Module, path: str) -> None:
    """Refuse what has no per-example gradient, before a pass would fail on it."""
    names = [name for name, p in layer.named_parameters(recurse=False) if p.requires_grad]
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        raise ModelError(f"{described(path, layer)}: has no per-example gradients{advice(layer)}")
    if isinstance(layer, nn.EmbeddingBag):
        raise ModelError(
            f"{described(path, layer)}: joins rows into bags; use nn.Embedding and take the mean "
            "or sum over the words"
        )
    if isinstance(layer, nn.Embedding) and layer.scale_grad_by_freq:
        raise ModelError(
            f"{described(path, layer)}: scale_grad_by_freq divides by how often the whole batch "
            "holds a word, which mixes examples; set it to False"
        )
    if type(layer) in _SAMPLERS and not set(names) <= {"weight", "bias"}:
        raise ModelError(
            f"{described(path, layer)}: holds {', '.join(names)}, for which its type has no "
            "per-example gradients; keep them in a module of their own"
        )
