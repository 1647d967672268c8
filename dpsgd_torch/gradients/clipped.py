"""Vectors to clip of which some layers' parts are never written out ("ghost clipping").

Norms add up over layers: squares from closed forms where a layer has one, of stored per-example
gradients elsewhere. The clipped sum is then one product a layer [Li et al. 2022; Bu et al. 2023].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dpsgd_torch.gradients.rules.base import ClosedForm, Sums
from dpsgd_torch.gradients.rules.slots import Slots
from dpsgd_torch.gradients.vectors import MARGIN, add_rows, squares, taken


class MixedVectors:
    """Vectors of closed forms and of ``grad_sample`` (see ``vectors.Vectors``).

    * An example whose gradient is not finite in any layer counts as zero in all of them.
    * Stored gradients that share a slot are added up in it at once, as clipped.
    """

    margin = MARGIN

    def __init__(
        self,
        forms: Sequence[ClosedForm],
        params: Sequence[nn.Parameter],
        slots: Slots,
        examples: int,
    ) -> None:
        held: Sequence[Any] = params
        self._forms, self._params, self._slots = forms, params, slots
        self._count = examples if slots.slots is None else int(slots.slots.max()) + 1
        self._kept = [p for p in held if p.grad_sample is not None]
        self._grads = taken(self._kept)
        closed = self._of_forms(slots)
        if slots.slots is None:
            self.norms = self._norms(closed)
            if not torch.isfinite(self.norms).all():
                self._silence(~torch.isfinite(self.norms))
            return
        finite = torch.ones(examples, dtype=torch.bool, device=closed.device)
        if self._grads:
            finite = torch.isfinite(squares(self._grads))
        if not torch.isfinite(closed.sum(0)).all():
            alone = self._of_forms(Slots(weights=slots.weights)).sum(0)
            finite = finite & torch.isfinite(alone)
        if not finite.all():
            self._silence(~finite)
            closed = self._of_forms(slots)
        self._grads = [slots.summed(slots.weighted(g)) for g in self._grads]
        self.norms = self._norms(closed)

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        slots, by_parameter = self._slots, dict(zip(self._params, sums, strict=True))
        by_row = factors if slots.slots is None else factors[slots.slots]
        by_row = by_row if slots.weights is None else by_row * slots.weights
        self._add(self._forms, by_parameter, by_row.double())
        add_rows([by_parameter[p] for p in self._kept], self._grads, factors)
        return 0.0

    def norm(self, slot: int) -> float:
        rows, weights = self._rows_of(slot)
        one = Slots(torch.zeros_like(rows), weights) if len(rows) > 1 else Slots(None, weights)
        with torch.no_grad():
            parts = [float(form.widened(rows).squared_norms(one)[0]) for form in self._forms]
        parts += [float(g[slot].double().square().sum()) for g in self._grads]
        return math.sqrt(sum(parts))

    def vector(self, slot: int) -> list[torch.Tensor]:
        rows, weights = self._rows_of(slot)
        sums: Sums = {p: torch.zeros_like(p, dtype=torch.float64) for p in self._params}
        self._add([form.again(rows) for form in self._forms], sums, weights)
        for p, g in zip(self._kept, self._grads, strict=True):
            sums[p] += g[slot].double().view_as(p)
        return [total.flatten() for total in sums.values()]

    def nbytes(self) -> int:
        kept = [t for form in self._forms for t in tree_leaves(vars(form)) if _is_held(t)]
        return sum(t.nbytes for t in [*kept, *self._grads])

    def _rows_of(self, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows that share a slot, and their weights in float64."""
        slots, weights, device = self._slots.slots, self._slots.weights, self.norms.device
        if slots is None:
            rows = torch.tensor([slot], device=device)
        else:
            rows = (slots == slot).nonzero()[:, 0]
        if weights is None:
            return rows, torch.ones(len(rows), dtype=torch.float64, device=device)
        return rows, weights[rows].double()

    def _silence(self, rows: torch.Tensor) -> None:
        for form in self._forms:
            form.silence(rows)
        self._grads = [g.masked_fill(rows[:, None], 0.0) for g in self._grads]

    @torch.no_grad()
    def _of_forms(self, slots: Slots) -> torch.Tensor:
        """(2, slots) squared norms over all closed forms, and what they may be too small by."""
        if not self._forms:
            return self._params[0].new_zeros(2, self._count)
        parts = [form.squared_norms(slots) for form in self._forms]
        return torch.stack([torch.stack([part[kind] for part in parts]).sum(0) for kind in (0, 1)])

    def _norms(self, closed: torch.Tensor) -> torch.Tensor:
        squared, error = closed
        if self._grads:
            squared = squared + squares(self._grads)
        return (squared + error).sqrt()

    @staticmethod
    @torch.no_grad()
    def _add(forms: Sequence[ClosedForm], sums: Sums, factors: torch.Tensor) -> None:
        for form in forms:
            form.add_to(sums, factors)


def _is_held(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)
