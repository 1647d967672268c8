"""Augmentation multiplicity: the gradients of several views of a record, averaged, then clipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from accountant.errors import check
from dpsgd_torch.data.base import Batch, Schema
from dpsgd_torch.data.trees import first, leaves, length, mapped, taken
from dpsgd_torch.data.units import Indices
from dpsgd_torch.data.views import Augment, Draws
from dpsgd_torch.errors import DataError, ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.samplers.base import Batch as Drawn
from dpsgd_torch.samplers.base import Sampler

_TRIED = 4  # rows


@dataclass(frozen=True)
class Views:
    """So many views of each record a step, each by ``augment`` [De et al. 2022, Section 3].

    * Guarantee: a record's views share its slot, each with weight 1/K: their mean gradient is one
      vector, clipped to C. A record still moves the sum by at most C; no ε is spent on it.
    * Views are drawn from the stream "augmentation" of the step, by the record's own number: a
      repeated step draws the same, on however many ranks, and no record's hang on another's.
    """

    count: int = 1
    augment: Augment | None = None

    def check(self, sampling: Sampler, *, secure: bool, compiles: bool) -> None:
        """Refuse what has no views, before anything is charged."""
        count = self.count
        check(isinstance(count, int) and count >= 1, "views", count, "must be a whole number ≥ 1")
        check(
            count == 1 or self.augment is not None,
            "views",
            count,
            "are the same row over and over without augment=…, which draws them",
        )
        if self == ONE_VIEW:
            return
        taken = {
            "microbatches, whose slots hold several records": sampling.microbatch_size > 1,
            "rows_per_unit, whose rows share a slot already: give views as rows of the unit": bool(
                sampling.rows_per_unit
            ),
            "secure, which charges for the rounding of rows alone in their slot": secure,
            "compile, which holds one row a slot": compiles,
        }
        for what, there in taken.items():
            check(not there, "views", count, f"cannot be had with {what}; drop one of them")

    def spread(self, drawn: Drawn) -> Drawn:
        """A row for each view, in its record's slot, with its part of the weight."""
        if self.count == 1:
            return drawn
        rows, slots = (np.repeat(each, self.count) for each in (drawn.rows, drawn.slots))
        return Drawn(rows, slots, np.full(rows.size, 1 / self.count, np.float32))

    def once(self, rows: Indices) -> Indices:
        """Each record of a piece once: its views lie beside each other."""
        return rows[:: self.count]

    def made(self, batch: Batch, rows: Indices, key: Callable[[], bytes]) -> Batch:
        """All views of these records, drawn by the key."""
        if self.augment is None:
            return batch
        # rows of its own: an augmentation that writes into them leaves the data as they are
        inputs, targets = (
            mapped(lambda part: part.repeat_interleave(self.count, dim=0), each) for each in batch
        )
        device = first(inputs).device
        numbers = np.tile(np.arange(self.count), len(rows))
        return self.augment(
            inputs, Draws(key(), np.repeat(rows, self.count), numbers, device)
        ), targets

    def try_on(self, rows: Batch) -> None:
        """Draw views of a few training rows before the first charge.

        Raises:
            DataError: they are no rows like those that they are made of.
            ModelError: they are others when they are drawn again, or alone.
        """
        if self.augment is None:
            return
        batch: Batch = taken(rows, slice(min(_TRIED, length(rows))))
        at, hint = np.arange(length(batch)), "; nothing was charged"
        with blamed("augment, over training rows", hint=hint):
            views, again = (self.made(batch, at, lambda: bytes(range(32))) for _ in range(2))
            alone: Batch = self.made(taken(batch, slice(1)), at[:1], lambda: bytes(range(32)))
        was, now = Schema.of(batch), Schema.of(views)
        if was != now or length(views[0]) != len(at) * self.count:
            raise DataError(
                f"augment: gives {length(views[0])} rows of {now.inputs}, must give "
                f"{len(at) * self.count} of {was.inputs}; return each row's, of its shape and dtype"
            )
        own: Batch = taken(views, slice(self.count))
        for what, one, other in (("when drawn again", views, again), ("alone", own, alone)):
            pairs = zip(leaves(one[0]), leaves(other[0]), strict=True)
            if not all(torch.allclose(a, b, atol=1e-5, equal_nan=True) for a, b in pairs):
                raise ModelError(
                    f"augment: a row's views are others {what}; draw them from draws(…) alone, and "
                    "make each row's of that row"
                )


ONE_VIEW = Views()
