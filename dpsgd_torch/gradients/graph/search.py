"""The search for layouts: where the examples are is found out by asking the graph.

One example several times over, and the gradient of the first's loss alone, then of the second's:
what only the first reaches is its own, what both reach is shared, and what neither owns by rows is
refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import mixing
from dpsgd_torch.gradients.graph.layouts import UNDECIDED, Layout, Layouts
from dpsgd_torch.gradients.graph.order import out_of_order
from dpsgd_torch.gradients.graph.walk import Key, Meeting, walk
from dpsgd_torch.gradients.rehearsal.carried import carried
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws

_MOVED = 0.2  # of a parameter's mean size: zeros that hide a use move away from zero


def add_layouts(
    layouts: Layouts,
    trained: Mapping[nn.Parameter, str],
    everything: Iterable[nn.Parameter],
    losses_of: Callable[[int], torch.Tensor],
    device: torch.device,
    attempts: int = 5,
) -> None:
    """Add the layouts of all meetings in the graph of equal examples.

    Args:
        everything: parameters to move a little, so that none is 0 and hides a use.
        losses_of: runs the model on one example several times over, on another in each attempt:
            their losses.
        attempts: a path may be closed for one example, and open for another.

    Raises:
        ModelError: examples mix where a parameter meets them, or their rows cannot be told.
    """
    search = _Search(layouts, trained)
    for attempt in range(attempts):
        with moved(everything, attempt), same_draws(device):
            with torch.enable_grad(), carried(FrozenDraws()):
                losses = losses_of(attempt)
            if losses.grad_fn is None or search.look(losses, last=attempt == attempts - 1):
                break
    for (key, _), layout in sorted(search.decided.items(), key=lambda item: item[0][1]):
        layouts.of.setdefault(key, []).append(layout)


class _Search:
    """Layouts that each meeting may have, fewer with every look."""

    def __init__(self, layouts: Layouts, trained: Mapping[nn.Parameter, str]) -> None:
        self._layouts, self._trained = layouts, trained
        self._possible: dict[tuple[Key, int], list[Layout]] = {}
        self.decided: dict[tuple[Key, int], Layout | None] = {}

    def look(self, losses: torch.Tensor, *, last: bool) -> bool:
        """Whether every meeting is decided; at last, the first of several layouts is taken.

        What no gradient came to is ``UNDECIDED``.

        Raises:
            ModelError: what no further look can mend.
        """
        open_ones = set[tuple[Key, int]]()
        while True:
            new: list[Meeting] = []

            def ask(meeting: Meeting, new: list[Meeting] = new) -> bool:
                place = meeting.key, meeting.use
                if place in self.decided:
                    return self.decided[place] is not None
                if self._layouts.known(meeting):
                    return self._layouts.layout(meeting) is not None
                if place not in open_ones:
                    new.append(meeting)
                return True

            walk(losses, self._trained, ask)
            if not new:
                return not open_ones
            refusals, before = [], len(self.decided)
            for meeting, first, second in _reached(losses, new):
                try:
                    if not self._decide(meeting, first, second, len(losses), last):
                        open_ones.add((meeting.key, meeting.use))
                except ModelError as refusal:  # unless what it is made of turns out to be shared
                    refusals.append((meeting, refusal))
            if len(self.decided) > before:
                continue
            if refusals and (last or not open_ones):
                raise refusals[0][1]
            open_ones.update((meeting.key, meeting.use) for meeting, _ in refusals)

    def _decide(
        self,
        meeting: Meeting,
        first: torch.Tensor | None,
        second: torch.Tensor | None,
        examples: int,
        last: bool,
    ) -> bool:
        place, shape = (meeting.key, meeting.use), meeting.shape()
        possible = self._possible.get(place) or list(_candidates(shape, examples))
        if first is None or second is None or not (first.any() or second.any()):
            if not last:
                return False
            known = place in self._possible
            self.decided[place] = possible[0] if known else UNDECIDED
            return True
        if (first & second).any():
            if not meeting.only_shared:
                raise mixing(f"parameter {meeting.names[0]}:")
            self.decided[place] = None
            return True
        fitting = [each for each in possible if _fits(each, first, second, examples)]
        if not fitting:
            raise out_of_order(meeting)
        self._possible[place] = fitting
        if len(fitting) == 1 or last:
            self.decided[place] = fitting[0]
            return True
        return False


def _reached(
    losses: torch.Tensor, meetings: list[Meeting]
) -> Iterator[tuple[Meeting, torch.Tensor | None, torch.Tensor | None]]:
    """What the first example's loss reaches of each meeting's output, and what the second's."""
    edges = [GradientEdge(m.node, m.outputs[0]) for m in meetings]
    reached = []
    for example in range(2):
        one = torch.zeros_like(losses)
        one[example] = 1.0
        found = torch.autograd.grad(
            [losses], edges, grad_outputs=[one], retain_graph=True, allow_unused=True
        )
        reached.append([None if g is None else g != 0 for g in found])
    yield from zip(meetings, *reached, strict=True)


def _fits(layout: Layout, first: torch.Tensor, second: torch.Tensor, examples: int) -> bool:
    shape = first.shape
    size = shape[layout.dim]
    inner = size // ((layout.outer or size // examples) * examples)
    place = torch.arange(size, device=first.device) // inner % examples
    owner = place.view(-1, *(1,) * (len(shape) - layout.dim - 1))
    return not (first & (owner != 0)).any() and not (second & (owner != 1)).any()


def _candidates(shape: torch.Size, examples: int) -> Iterator[Layout]:
    for dim, size in enumerate(shape):
        if size == examples:
            yield Layout(dim, alone=True)
    for dim, size in enumerate(shape):
        each, left = divmod(size, examples)
        if left or each < 2:
            continue
        yield Layout(dim)
        yield Layout(dim, outer=0)
        for outer in range(2, each):
            if each % outer == 0:
                yield Layout(dim, outer, each // outer)


@contextlib.contextmanager
def moved(parameters: Iterable[nn.Parameter], seed: int) -> Iterator[None]:
    """Parameters a little away from where they are, and back."""
    generator = torch.Generator().manual_seed(seed)
    kept = []
    try:
        with torch.no_grad():
            for p in parameters:
                if p.is_floating_point() and p.numel():
                    kept.append((p, p.detach().clone()))
                    size = _MOVED * (float(p.abs().mean()) + 0.05)
                    p.add_(torch.randn(p.shape, generator=generator).to(p), alpha=size)
        yield
    finally:
        with torch.no_grad():
            for p, was in kept:
                p.copy_(was)
