"""While a pass is traced: what depends on values is noted, and decided once they are known.

A trace is one path through the code. Where that hangs on a row's values, the usual path is traced
and the row's doubt becomes one of the pass's outputs: whoever runs it goes another way then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

PIECES = 4  # at most, that a traced loop over rows has: each is code of its own

_DOUBTS: ContextVar[list[torch.Tensor] | None] = ContextVar("doubts of a traced pass", default=None)


@contextlib.contextmanager
def tracing() -> Iterator[list[torch.Tensor]]:
    """Within, masks of rows in doubt are collected and taken to be empty."""
    doubts: list[torch.Tensor] = []
    token = _DOUBTS.set(doubts)
    try:
        yield doubts
    finally:
        _DOUBTS.reset(token)


def is_traced() -> bool:
    return _DOUBTS.get() is not None


def any_of(rows: torch.Tensor) -> bool:
    """Whether a mask holds for any row.

    >>> with tracing() as doubts:
    ...     any_of(torch.tensor([True])), len(doubts)
    (False, 1)
    """
    doubts = _DOUBTS.get()
    if doubts is None:
        return bool(rows.any())
    doubts.append(rows)
    return False


def step_of(count: int, step: int) -> int:
    """How many of ``count`` rows are worked on at once, where memory's caches would have ``step``.

    >>> with tracing():
    ...     step_of(1000, 3)
    250
    """
    return max(step, -(-count // PIECES)) if is_traced() else step
