"""Old names of arguments and of values, which work for one release and say what they are now."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from accountant.late import warn_renamed

Called = TypeVar("Called", bound=Callable[..., Any])


def renamed_arguments(
    values: Mapping[str, Mapping[str, str]] | None = None, /, **now: str
) -> Callable[[Called], Called]:
    """A decorator that takes arguments by their old names too: ``old="new"``.

    Args:
        values: argument → its values' old names → the new ones.

    >>> import warnings
    >>> @renamed_arguments(watch="early_stopping")
    ... def train(*, early_stopping):
    ...     return early_stopping
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     train(watch=3), str(caught[0].message)
    (3, 'watch: is called early_stopping now; the old name goes with the next release')
    >>> @renamed_arguments({"gradients": {"ghost": "graph"}})
    ... def step(*, gradients):
    ...     return gradients
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     step(gradients="ghost"), str(caught[0].message)
    ('graph', "gradients='ghost': is called 'graph' now; the old name goes with the next release")
    """

    def wrap(function: Called) -> Called:
        @functools.wraps(function)
        def taken(*args: Any, **given: Any) -> Any:
            for old, new in now.items():
                if old in given and new not in given:
                    warn_renamed(old, new)
                    given[new] = given.pop(old)
            for name, names in (values or {}).items():
                was = given.get(name)
                if isinstance(was, str) and was in names:
                    warn_renamed(f"{name}={was!r}", repr(names[was]))
                    given[name] = names[was]
            return function(*args, **given)

        return taken  # type: ignore[return-value]

    return wrap
