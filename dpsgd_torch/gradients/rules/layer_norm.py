"""nn.LayerNorm: δ x̂ for the weight, δ for the bias; few, so written out and never kept."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn
from torch.nn import functional

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import ClosedForm, PerParameter, Sums
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register
from dpsgd_torch.gradients.rules.slots import Slots
from dpsgd_torch.gradients.rules.vmap import run_again


class LayerNormForm(ClosedForm):
    """Over the features of single vectors."""

    layer: nn.LayerNorm
    added: torch.Tensor | None = None

    def squared_norms(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        delta = slots.weighted(self.delta)
        squared = slots.summed(delta * self._normal()).square().sum(1)
        if self.layer.bias is not None:
            squared = squared + slots.summed(delta).square().sum(1)
        return squared, torch.zeros_like(squared)

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        sums[self.layer.weight] += factors @ (self.delta * self._normal()).double()
        if self.layer.bias is not None:
            sums[self.layer.bias] += factors @ self.delta.double()

    def widened(self, rows: torch.Tensor) -> Self:
        """With x̂ as it is added: of rows far from 0 float64 has another, and another norm."""
        twin = super().widened(rows)
        twin.added = self._normal()[rows].double()
        return twin

    def again(self, rows: torch.Tensor) -> Self:
        return super().widened(rows)

    def _normal(self) -> torch.Tensor:
        if self.added is not None:
            return self.added
        return functional.layer_norm(self.x, self.layer.normalized_shape, eps=self.layer.eps)


@register(nn.LayerNorm)
class LayerNormRule(OpacusRule):
    """Opacus's, which needs a bias; without one the layer is run again."""

    closed_form = LayerNormForm

    def per_example(self, use: Use, delta: torch.Tensor) -> PerParameter:
        if use.layer.bias is None:
            return run_again(use, delta, inside=False)
        return super().per_example(use, delta)
