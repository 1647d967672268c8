"""Per-example gradients of any layer: it is run again, one example at a time, under vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import functional_call, grad, vmap

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Use, advice, described


def run_again(use: Use, delta: torch.Tensor, *, inside: bool) -> dict[Any, torch.Tensor]:
    """(examples, …) gradients of each trainable parameter, those ``inside`` its layers too."""
    layer = use.layer
    trainable = {name: p for name, p in layer.named_parameters(recurse=inside) if p.requires_grad}
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
