"""What is wrapped around a pass, for whoever runs that pass in a thread of its own.

Dispatch modes and hooks on saved tensors belong to a thread. A loop that is asked for losses runs
its model in another than the one that asks, and enters there what is entered here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")
_here = threading.local()


@contextlib.contextmanager
def carried(context: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a context that can be entered more than once, and say so."""
    entered = around()
    with context as given:
        _here.entered = (*entered, context)
        try:
            yield given
        finally:
            _here.entered = entered


def around() -> tuple[AbstractContextManager[Any], ...]:
    """What is entered in this thread, the outermost first.

    >>> with carried(contextlib.nullcontext(3)) as given:
    ...     len(around()), given
    (1, 3)
    """
    return getattr(_here, "entered", ())
