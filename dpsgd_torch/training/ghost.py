"""Clipping without per-example gradients, for models of linear layers: one backward pass in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.layers import WeightNormLinear
from dpsgd_torch.training.losses import Loss
from dpsgd_torch.training.sites import SITES, Rows, Site, Sums, WeightNormSite
from dpsgd_torch.training.vectors import unreached


def has_closed_form(model: nn.Module) -> bool:
    """Whether every trainable parameter belongs to one layer whose gradients have closed forms.

    >>> has_closed_form(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.LayerNorm(2)))
    True
    >>> has_closed_form(nn.Conv2d(1, 1, 3))
    False
    """
    owned: list[nn.Parameter] = []
    for layer in model.modules():
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        if own and (type(layer) not in SITES or len(own) != len(list(layer.parameters()))):
            return False
        owned += own
    return len(owned) == len(set(owned))


class NoClosedForm(ModelError):
    """A layer is used in a way whose gradients have no closed form here."""


class GhostGradients:
    """The model with hooks that keep each layer's input, and the loss's gradient at its output.

    * Memory grows with examples × widths, not with examples × parameters.
    * A step runs forward, back to the outputs (no gradient of a weight), and one product a layer
      for the clipped sum: as many multiplications as a step without privacy.
    """

    def __init__(self, model: nn.Module) -> None:
        if not has_closed_form(model):
            names = ", ".join(sorted(kind.__name__ for kind in SITES))
            raise NoClosedForm(
                f"model: a trainable parameter is not that of one {names}; pass gradients='hooks'"
            )
        self._model, self._sites = model, list[Site]()
        self._names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self._projection = torch.empty(0)
        self._hooks = []
        for layer in model.modules():
            if type(layer) in SITES and any(p in self._names for p in layer.parameters()):
                self._hooks.append(layer.register_forward_hook(self._keep))
            if isinstance(layer, WeightNormLinear):
                self._hooks.append(layer.projection.register_forward_hook(self._keep_projection))

    def backward(self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Sum of the losses; what the examples left stays here until ``vectors``."""
        self._sites.clear()
        total = loss(self._model(inputs), targets).sum()
        outputs = [site.output for site in self._sites]
        deltas = torch.autograd.grad(total, outputs, allow_unused=True)
        for site, delta in zip(self._sites, deltas, strict=True):
            if delta is None:
                raise unreached(self._names[next(site.layer.parameters())])
            site.delta, site.output = delta, delta  # the graph is not needed any more
        return float(total.detach())

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Factored:
        sites = list(self._sites)
        self._sites.clear()
        used = Counter(p for site in sites for p in site.layer.parameters())
        for p in params:
            if not used[p]:
                raise unreached(self._names[p])
            if used[p] > 1:
                raise NoClosedForm(
                    f"parameter {self._names[p]}: is used more than once in a pass; "
                    "pass gradients='hooks', which can add both uses up"
                )
        return Factored(sites, params, Rows(slots, weights))

    def cleanup(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            if output.ndim != 2:
                raise NoClosedForm(
                    f"layer {type(layer).__name__}: gives {output.ndim - 1} dimensions an example, "
                    "closed forms take one; pass gradients='hooks'"
                )
            site = SITES[type(layer)](layer, inputs[0], output)
            if isinstance(site, WeightNormSite):
                site.u = self._projection
            self._sites.append(site)

    def _keep_projection(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        self._projection = output.detach()


class Factored:
    """Vectors known by the factors of their parts (see ``vectors.Vectors``)."""

    def __init__(self, sites: list[Site], params: Sequence[nn.Parameter], rows: Rows) -> None:
        self._sites, self._params, self._rows = sites, params, rows
        self.norms = self._norms(rows)
        if not torch.isfinite(self.norms).all():
            bad = ~torch.isfinite(self._norms(Rows(weights=rows.weights)))
            for site in sites:
                site.silence(bad)
            if rows.slots is not None:
                self.norms = self._norms(rows)

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor) -> None:
        rows = self._rows
        by_row = factors if rows.slots is None else factors[rows.slots]
        by_row = by_row if rows.weights is None else by_row * rows.weights
        wide = [site.widened() for site in self._sites]
        self._add(wide, dict(zip(self._params, sums, strict=True)), by_row.double())

    def vector(self, slot: int) -> list[torch.Tensor]:
        rows = self._rows
        chosen = (
            torch.tensor([slot]) if rows.slots is None else (rows.slots == slot).nonzero()[:, 0]
        )
        sums: Sums = {p: torch.zeros_like(p, dtype=torch.float64) for p in self._params}
        chosen = chosen.to(self.norms.device)
        weights = self.norms.new_ones(len(chosen)).double()
        if rows.weights is not None:
            weights = rows.weights[chosen].double()
        self._add([site.double(chosen) for site in self._sites], sums, weights)
        return [total.flatten() for total in sums.values()]

    @torch.no_grad()
    def _norms(self, rows: Rows) -> torch.Tensor:
        parts = [site.squared_norms(rows) for site in self._sites]
        squared = torch.stack([squared for squared, _ in parts]).sum(0)
        return (squared + torch.stack([error for _, error in parts]).sum(0)).sqrt()

    @staticmethod
    @torch.no_grad()
    def _add(sites: list[Site], sums: Sums, factors: torch.Tensor) -> None:
        for site in sites:
            site.add_to(sums, factors)
