"""Where the examples are in each meeting's output, found out once by asking the graph.

One example several times over, and the gradient of the first's loss alone, then of the second's:
what only the first reaches is its own, what both reach is shared, and what neither owns by rows is
refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.walk import Key, Meeting, walk
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws

_MOVED = 0.2  # of a parameter's mean size: zeros that hide a use move away from zero


@dataclass(frozen=True)
class Layout:
    """A dimension of (outer, examples, inner); ``outer`` 0: the examples are its fastest.

    ``alone``: nothing else was in that dimension, so nothing else may come into it.
    ``inner``: how much there was to one example inside, where ``outer`` is fixed.
    """

    dim: int
    outer: int = 1
    inner: int = 0
    alone: bool = False

    def rows(self, examples: int, shape: torch.Size) -> Rows | None:
        """The same for another batch; None where it does not fit."""
        if self.dim >= len(shape):
            return None
        steps, left = divmod(shape[self.dim], examples)
        if left or not steps or (self.alone and steps != 1):
            return None
        if self.inner and steps != self.outer * self.inner:
            return None
        return Rows(examples, self.dim, self.outer or steps)


UNDECIDED = Layout(-1)  # no gradient came there, and none may before it is known


@dataclass
class Layouts:
    """By key, the layout of each of its meetings in turn; None where a node is shared.

    Where all are alike there may be more or fewer the next time (the steps of a sequence).
    ``later`` are those whose rules need the graph after the backward pass.
    """

    of: dict[Key, list[Layout | None]] = field(default_factory=dict)
    later: set[Key] = field(default_factory=set)

    def known(self, meeting: Meeting) -> bool:
        found = self.of.get(meeting.key, [])
        return len(found) > meeting.use or (len(found) > 0 and len(set(found)) == 1)

    def layout(self, meeting: Meeting) -> Layout | None:
        found = self.of[meeting.key]
        return found[meeting.use] if meeting.use < len(found) else found[0]

    def holds_examples(self, meeting: Meeting, examples: int) -> bool:
        """Set the meeting's rows; False where it is shared.

        Raises:
            Unknown: no pass that was looked at had such a meeting.
            ModelError: the pass is not as the one that was looked at.
        """
        if not self.known(meeting):
            raise Unknown
        layout = self.layout(meeting)
        if layout is None:
            return False
        if layout == UNDECIDED:
            meeting.rows = None
            return True
        meeting.rows = layout.rows(examples, meeting.shape())
        if meeting.rows is None:
            raise ModelError(
                f"parameter {meeting.names[0]}: a tensor of shape {tuple(meeting.shape())} is made "
                f"with it where the batch has {examples} examples: its rows are not the examples, "
                "so no clip would bound one of them; keep the examples in one dimension throughout"
            )
        return True

    def forget_undecided(self) -> None:
        """So that the next example that is looked at may decide them."""
        self.of = {key: uses for key, uses in self.of.items() if UNDECIDED not in uses}


class Unknown(Exception):
    """A pass meets a parameter where no pass that was looked at did."""


def add_layouts(
    layouts: Layouts,
    trained: Mapping[nn.Parameter, str],
    everything: Iterable[nn.Parameter],
    losses_of: Callable[[], torch.Tensor],
    device: torch.device,
) -> None:
    """Add the layouts of all meetings in the graph of equal examples.

    Args:
        everything: parameters to move a little, so that none is 0 and hides a use.
        losses_of: runs the model on one example several times over: their losses.

    Raises:
        ModelError: examples mix where a parameter meets them, or their rows cannot be told.
    """
    with _moved(everything), same_draws(device):
        with torch.enable_grad(), FrozenDraws():
            losses = losses_of()
        if losses.grad_fn is None:
            return
        while True:
            new: list[Meeting] = []

            def ask(meeting: Meeting, new: list[Meeting] = new) -> bool:
                if layouts.known(meeting):
                    return layouts.layout(meeting) is not None
                new.append(meeting)
                return True

            walk(losses, trained, ask)
            if not new:
                return
            found = list(_owners(losses, new))
            told = [(m, layout) for m, layout in found if not isinstance(layout, ModelError)]
            for _, refusal in found:
                if not told and isinstance(refusal, ModelError):
                    raise refusal
            for meeting, layout in told:
                uses = layouts.of.setdefault(meeting.key, [])
                if len(uses) == meeting.use:
                    uses.append(layout)


def _owners(
    losses: torch.Tensor, meetings: list[Meeting]
) -> Iterator[tuple[Meeting, Layout | ModelError | None]]:
    edges = [GradientEdge(m.node, m.outputs[0]) for m in meetings]
    reached = []
    for example in range(2):
        one = torch.zeros_like(losses)
        one[example] = 1.0
        found = torch.autograd.grad(
            [losses], edges, grad_outputs=[one], retain_graph=True, allow_unused=True
        )
        reached.append([None if g is None else g != 0 for g in found])
    for meeting, first, second in zip(meetings, *reached, strict=True):
        yield meeting, _owner(meeting, first, second, len(losses))


def _owner(
    meeting: Meeting, first: torch.Tensor | None, second: torch.Tensor | None, examples: int
) -> Layout | ModelError | None:
    """A refusal is not yet final: what this one is made of may turn out to be shared."""
    shape = meeting.shape()
    if first is None or second is None or not (first.any() or second.any()):
        return UNDECIDED
    if (first & second).any():
        if meeting.only_shared:
            return None
        return ModelError(
            f"parameter {meeting.names[0]}: one example's gradient changes with another example; "
            "remove what works across the batch (statistics, attention, contrastive terms)"
        )
    for layout in _candidates(shape, examples):
        size = shape[layout.dim]
        inner = size // ((layout.outer or size // examples) * examples)
        place = torch.arange(size, device=first.device) // inner % examples
        owner = place.view(-1, *(1,) * (len(shape) - layout.dim - 1))
        if not (first & (owner != 0)).any() and not (second & (owner != 1)).any():
            return layout
    return ModelError(
        f"parameter {meeting.names[0]}: meets a tensor of shape {tuple(shape)} whose rows are not "
        "the examples in their order (sorted, routed or packed); keep the examples in one "
        "dimension throughout, or freeze it by requires_grad_(False)"
    )


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
def _moved(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Parameters a little away from where they are, and back."""
    generator = torch.Generator().manual_seed(0)
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
