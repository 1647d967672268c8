"""Layers that torch has in another form."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional


class WeightNormLinear(nn.Module):
    """Weight-normalised linear layer: y = g · (x · v / ‖v‖) + b, one g and ‖v‖ an output.

    [Salimans, Kingma 2016, Eq. 2]. ``torch.nn.utils.parametrizations.weight_norm`` computes the
    same; here both parameters belong to one layer.

    Args:
        in_features: inputs an example.
        out_features: outputs an example.

    >>> layer = WeightNormLinear(3, 2)
    >>> layer(torch.ones(5, 3)).shape, [tuple(p.shape) for p in layer.parameters()]
    (torch.Size([5, 2]), [(2, 3), (2,), (2,)])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        self.weight_g = nn.Parameter(torch.empty(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.projection = nn.Identity()  # in contracts of runs: it stays
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Glorot-uniform v, g = ‖v‖ (so that y = x · v + b), zero bias."""
        nn.init.xavier_uniform_(self.weight_v, generator=generator)
        with torch.no_grad():
            self.weight_g.copy_(self.weight_v.norm(dim=1))
        nn.init.zeros_(self.bias)

    def direction(self) -> torch.Tensor:
        """(out_features, in_features) v / ‖v‖."""
        return self.weight_v / self.weight_v.norm(dim=1, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) → (…, out_features)."""
        if self._as_one_node(x):
            found: torch.Tensor = WeightNormProduct.apply(
                x, self.weight_v, self.weight_g, self.bias
            )
            return found
        return self.projection(functional.linear(x, self.direction())) * self.weight_g + self.bias

    def _as_one_node(self, x: torch.Tensor) -> bool:
        """Whether autograd, and nothing else, looks on: no hook, transform, export or cast."""
        return (
            torch.is_grad_enabled()
            and type(x) is torch.Tensor
            and not self.projection._forward_hooks
            and not torch.compiler.is_compiling()
            and not torch._C._get_tracing_state()
            and not torch.is_autocast_enabled(x.device.type)
            and torch._C._functorch.peek_interpreter_stack() is None
            and forward_ad._current_level < 0
        )

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class WeightNormProduct(torch.autograd.Function):
    """WeightNormLinear as one node of the graph, which keeps x · v / ‖v‖ for per-example gradients.

    Whoever tells the gradients of parameters without its backward adds to ``told`` beforehand: then
    the backward leaves them out.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, v: torch.Tensor, g: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        direction = v / v.norm(dim=1, keepdim=True)
        u = functional.linear(x, direction)
        ctx.save_for_backward(x, v, g, u, direction)
        ctx.told = []
        return u * g + bias

    @staticmethod
    def backward(ctx: Any, *deltas: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (delta,), (x, v, g, u, direction) = deltas, ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            direction = v / v.norm(dim=1, keepdim=True)
            u = functional.linear(x, direction)
        found: list[torch.Tensor | None] = [None] * 4
        if ctx.needs_input_grad[0]:
            found[0] = (delta * g) @ direction
        if not ctx.told:
            delta, x, u = (t.reshape(-1, t.shape[-1]) for t in (delta, x, u))
            seen = (delta * u).sum(0)
            whole = delta.T @ x - seen[:, None] * direction
            found[1:] = (g / v.norm(dim=1))[:, None] * whole, seen, delta.sum(0)
        return tuple(found)
