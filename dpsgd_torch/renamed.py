"""Old names of arguments, which work for one release and say what they are called now."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from accountant.late import warn_renamed

Called = TypeVar("Called", bound=Callable[..., Any])


def renamed_arguments(**now: str) -> Callable[[Called], Called]:
    """A decorator that takes arguments by their old names too: ``old="new"``.

    >>> import warnings
    >>> @renamed_arguments(watch="early_stopping")
    ... def train(*, early_stopping):
    ...     return early_stopping
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     train(watch=3), str(caught[0].message)
    (3, 'watch: is called early_stopping now; the old name goes with the next release')
    """

    def wrap(function: Called) -> Called:
        @functools.wraps(function)
        def taken(*args: Any, **given: Any) -> Any:
            for old, new in now.items():
                if old in given and new not in given:
                    warn_renamed(old, new)
                    given[new] = given.pop(old)
            return function(*args, **given)

        return taken  # type: ignore[return-value]

    return wrap
