"""Clipping without per-example gradients, for models of linear layers: one backward pass in all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Capture, Use, described
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.sites import SITES, Rows, Site, Sums, WeightNormSite
from dpsgd_torch.layers import WeightNormLinear


def has_closed_form(model: nn.Module) -> bool:
    """Whether every trainable parameter belongs to one layer whose gradients have closed forms.

    >>> has_closed_form(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.LayerNorm(2)))
    True
    >>> has_closed_form(nn.Conv2d(1, 1, 3))
    False
    """
    owned: list[nn.Parameter] = []
    for layer in model.modules():
        held = dict(layer.named_parameters(recurse=False))
        own = [p for p in held.values() if p.requires_grad]
        known = type(layer) in SITES and set(held) <= SITES[type(layer)].names
        if own and not (known and len(own) == len(list(layer.parameters()))):
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
        self._model, self._sites, self._examples = model, list[Site](), 0
        self._names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        layers = {
            layer: path
            for path, layer in model.named_modules()
            if type(layer) in SITES and any(p in self._names for p in layer.parameters())
        }
        self._capture = Capture(layers)
        self._projections: list[torch.Tensor] = []
        self._hooks = [
            layer.projection.register_forward_hook(self._keep_projection)
            for layer in layers
            if isinstance(layer, WeightNormLinear)
        ]

    def backward(self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Sum of the losses; what the examples left stays here until ``vectors``."""
        self._sites.clear()
        self._projections.clear()
        self._examples = len(inputs)
        total, uses = self._capture.losses(self._model, loss, inputs, targets)
        edges = [use.edge for use in uses]
        deltas = torch.autograd.grad(total, edges, allow_unused=True) if edges else ()
        projections = iter(self._projections)
        for use, delta in zip(uses, deltas, strict=True):
            use.refuse_overwritten()
            site = self._site(use, projections)
            if delta is not None:
                site.delta = delta.to(site.x.dtype)
                self._sites.append(site)
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
        if twice := [self._names[p] for p in params if used[p] > 1]:
            raise NoClosedForm(
                f"parameter {twice[0]}: is used more than once in a pass; "
                "pass gradients='hooks', which can add both uses up"
            )
        return Factored(sites, params, Rows(slots, weights), self._examples)

    def cleanup(self) -> None:
        self._capture.remove()
        for hook in self._hooks:
            hook.remove()

    def _site(self, use: Use, projections: Iterator[torch.Tensor]) -> Site:
        if use.dimensions != 2:
            raise NoClosedForm(
                f"{described(use.path, use.layer)}: gives {use.dimensions - 1} dimensions an "
                "example, closed forms take one; pass gradients='hooks'"
            )
        dtype = next(use.layer.parameters()).dtype  # norms are not rounded to half precision
        site = SITES[type(use.layer)](use.layer, use.x.to(dtype))
        if isinstance(site, WeightNormSite):
            site.u = next(projections).to(dtype)
        return site

    def _keep_projection(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self._projections.append(output.detach())


class Factored:
    """Vectors known by the factors of their parts (see ``vectors.Vectors``)."""

    def __init__(
        self, sites: list[Site], params: Sequence[nn.Parameter], rows: Rows, examples: int
    ) -> None:
        self._sites, self._params, self._rows = sites, params, rows
        self._slots = examples if rows.slots is None else int(rows.slots.max()) + 1
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
        self._add(self._sites, dict(zip(self._params, sums, strict=True)), by_row.double())

    def norm(self, slot: int) -> float:
        rows, weights = self._rows_of(slot)
        one = Rows(torch.zeros_like(rows), weights) if len(rows) > 1 else Rows(None, weights)
        with torch.no_grad():
            parts = [site.widened(rows).squared_norms(one)[0] for site in self._sites]
        return math.sqrt(sum(map(float, parts)))

    def vector(self, slot: int) -> list[torch.Tensor]:
        rows, weights = self._rows_of(slot)
        sums: Sums = {p: torch.zeros_like(p, dtype=torch.float64) for p in self._params}
        self._add([site.double(rows) for site in self._sites], sums, weights)
        return [total.flatten() for total in sums.values()]

    def _rows_of(self, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows that share a slot, and their weights in float64."""
        slots, weights, device = self._rows.slots, self._rows.weights, self.norms.device
        if slots is None:
            rows = torch.tensor([slot], device=device)
        else:
            rows = (slots == slot).nonzero()[:, 0]
        if weights is None:
            return rows, torch.ones(len(rows), dtype=torch.float64, device=device)
        return rows, weights[rows].double()

    @torch.no_grad()
    def _norms(self, rows: Rows) -> torch.Tensor:
        if not self._sites:  # no parameter was used in this pass
            return self._params[0].new_zeros(self._slots)
        parts = [site.squared_norms(rows) for site in self._sites]
        squared = torch.stack([squared for squared, _ in parts]).sum(0)
        return (squared + torch.stack([error for _, error in parts]).sum(0)).sqrt()

    @staticmethod
    @torch.no_grad()
    def _add(sites: list[Site], sums: Sums, factors: torch.Tensor) -> None:
        for site in sites:
            site.add_to(sums, factors)
