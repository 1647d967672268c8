"""Layers that torch has in another form."""

from __future__ import annotations

import torch
from torch import nn
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
        return self.projection(functional.linear(x, self.direction())) * self.weight_g + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"
