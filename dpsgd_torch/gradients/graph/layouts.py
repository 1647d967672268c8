"""Where the examples are in each meeting's output, as was found before the first charge."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.walk import Key, Meeting


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
    ``later`` are those whose rules need the graph after the backward pass; ``seen`` are patterns of
    passes in which rows were found to be where layouts say.
    """

    of: dict[Key, list[Layout | None]] = field(default_factory=dict)
    later: set[Key] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)

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

    def decided(self, key: Key, use: int) -> bool:
        """Whether a look has told where this use has the examples."""
        found = self.of.get(key, [])
        return bool(found) and found[use if use < len(found) else 0] != UNDECIDED

    def forget_undecided(self) -> dict[Key, list[Layout | None]]:
        """So that the next example that is looked at may decide them; what is forgotten."""
        forgotten = {key: uses for key, uses in self.of.items() if UNDECIDED in uses}
        self.of = {key: uses for key, uses in self.of.items() if UNDECIDED not in uses}
        return forgotten

    def recall(self, before: dict[Key, list[Layout | None]]) -> None:
        """What another example had decided, and the last one that was looked at did not.

        A short sequence sends nothing to the steps beyond its end, a long one does.
        """
        for key, uses in before.items():
            now = self.of.setdefault(key, uses)
            for use, layout in enumerate(uses[: len(now)]):
                now[use] = layout if now[use] == UNDECIDED else now[use]


class Unknown(Exception):
    """A pass meets a parameter where no pass that was looked at did."""

    def __str__(self) -> str:
        return "a parameter is met where no pass that was looked at met it"
