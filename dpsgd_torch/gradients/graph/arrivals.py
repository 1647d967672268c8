"""The one backward pass: what comes back to each meeting, turned into parts on the spot.

A meeting's saved tensors are let go of as the pass goes on, so memory holds what parts keep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import GradientEdge
from torch.utils.checkpoint import CheckpointError

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.order import (
    GREATEST,
    MOVING,
    may_move,
    pattern,
    refuse_moved,
    tallies,
    weights,
)
from dpsgd_torch.gradients.graph.rules.base import NeedsGraph, NoRule, checked, rule_for
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.saved import Readings, Saved
from dpsgd_torch.gradients.graph.walk import Edge, Key, Meeting, Walk
from dpsgd_torch.gradients.parts import Part

Deltas = tuple[torch.Tensor | None, ...]  # one for each of a node's outputs


class Again(Exception):
    """A node must wait: the pass must be run again, with the graph kept until after it.

    Its rule calls it, or what it saved is had once in a pass (activation checkpointing).
    """

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key


class Undecided(Exception):
    """A gradient comes to where nobody knows yet where the examples are."""

    def __init__(self, key: Key, use: int) -> None:
        super().__init__()
        self.key, self.use = key, use


class Arrivals:
    """Gradients that arrive at the meetings of a walk.

    Args:
        later: keys of meetings whose rules call their node, which waits until the pass is over.
        seen: patterns of passes whose rows were found where they belong; this one's is added.
        scale: a power of 2 by which losses, and so all that is collected, are multiplied.
    """

    def __init__(self, found: Walk, later: set[Key], seen: set[int], scale: float = 1.0) -> None:
        self._found, self._later, self._seen, self._scale = found, later, seen, scale
        self._waiting: list[tuple[Meeting, Deltas]] = []
        self._taken: Meeting | None = None  # whose node runs next
        self._received: dict[Edge, list[Part]] = {}
        self._readings = Readings()
        self._weighted: dict[tuple[Any, int], torch.Tensor | None] = {}

    def collect(self, losses: torch.Tensor) -> dict[Edge, list[Part]]:
        """What the examples add to each shared input of a meeting, by node and output.

        Raises:
            Again: with the key to wait for.
            Undecided: with the key to look at.
            ModelError: a meeting cannot be told apart example by example.
        """
        self._weigh(losses)
        keep = any(m.key in self._later for m in self._found.meetings)
        try:
            self._pass(losses, torch.full_like(losses, self._scale), self._arrive, keep=keep)
        except CheckpointError:  # what the rule had taken, the node cannot have any more
            if self._taken is None:
                raise
            raise Again(self._taken.key) from None
        with torch.no_grad():
            while self._waiting:
                self._take(*self._waiting.pop())
        self._seen.add(self._pattern)
        return self._received

    def _pass(
        self,
        losses: torch.Tensor,
        weights: torch.Tensor,
        arrived: Callable[[Meeting, Deltas], None],
        *,
        keep: bool,
    ) -> None:
        """One backward pass of weighted losses, no further than to the last meetings."""
        last = {id(m.node) for m in self._found.last}
        handles = [
            m.node.register_prehook(functools.partial(arrived, m))
            for m in self._found.meetings
            if id(m.node) not in last
        ]
        asked = [(m, output) for m in self._found.last for output in m.outputs]
        edges = [GradientEdge(m.node, output) for m, output in asked]
        try:
            deltas = list(
                torch.autograd.grad(
                    [losses], edges, grad_outputs=[weights], allow_unused=True, retain_graph=keep
                )
                if edges
                else ()
            )
        finally:
            for handle in handles:
                handle.remove()
        with torch.no_grad():
            for meeting in reversed(self._found.last):
                came: list[torch.Tensor | None] = [None] * (meeting.outputs[-1] + 1)
                for output in reversed(meeting.outputs):
                    came[output] = deltas.pop()
                arrived(meeting, tuple(came))

    def _weigh(self, losses: torch.Tensor) -> None:
        """One more pass where rows may have moved: what comes when each example has a weight."""
        moving = [each for each in self._found.passing if each[0].name() in MOVING]
        self._pattern = pattern(self._found.passing, self._found.meetings)
        if self._pattern in self._seen and not may_move(moving, self._found.meetings):
            return
        down = self._scale / GREATEST if self._scale > 1 else 1.0  # so that nothing overflows
        self._pass(losses, weights(losses) * down, self._tally, keep=True)

    def _tally(self, meeting: Meeting, deltas: Deltas) -> None:
        if meeting.rows is None:
            return
        with torch.no_grad():
            for output in meeting.outputs:
                if (delta := deltas[output]) is not None:
                    found = tallies(meeting.rows, delta)
                    found = found if self._scale == 1 else found * GREATEST
                    self._weighted[meeting.node, output] = found

    def _arrive(self, meeting: Meeting, deltas: Deltas) -> None:
        if meeting.key in self._later:
            self._taken = None
            self._waiting.append((meeting, deltas))
        else:
            self._taken = meeting
            self._take(meeting, deltas)

    def _take(self, meeting: Meeting, deltas: Deltas) -> None:
        """What a meeting's output gradient adds to its shared inputs."""
        given = [delta for delta in deltas if delta is not None]
        if not given:
            return
        if meeting.rows is None:
            if any(bool(delta.any()) for delta in given):
                raise Undecided(meeting.key, meeting.use)
            return
        node, name = meeting.node, meeting.key[1]
        for output in meeting.outputs:
            weighted, delta = self._weighted.pop((node, output), None), deltas[output]
            if weighted is not None and delta is not None:
                refuse_moved(meeting, delta, weighted)
        rule = rule_for(name) or one_at_a_time
        try:
            if len(given) > 1 or deltas[0] is None:
                raise NoRule("has several outputs")
            try:
                with self._readings.open():
                    read = Saved(node) if self._readings.apart else node
                    found = rule(read, deltas[0], meeting.wanted, meeting.rows)
            except NeedsGraph:
                found = rule(node, deltas[0], meeting.wanted, meeting.rows)
            parts = checked(found, node, meeting.wanted, meeting.rows.examples)
        except NeedsGraph:
            raise Again(meeting.key) from None
        except (NoRule, ValueError) as error:
            raise ModelError(
                f"parameter {meeting.names[0]}: its use ({name}) {error}; or freeze it by "
                "requires_grad_(False)"
            ) from error
        for place, part in parts.items():
            self._received.setdefault(node.next_functions[place], []).append(part)
