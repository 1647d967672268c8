"""Lazy imports of a package's public names: a module loads when a name of it is first asked for.

With module ``__getattr__`` and ``__dir__`` [PEP 562]. Type checkers read the package's imports
under TYPE_CHECKING instead; a test holds the two and ``__all__`` together.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def late(
    package: str, homes: Mapping[str, str], renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of ``package``; ``homes``: module → names, space-separated.

    Submodules are attributes too, as they are of a package that has imported them all. ``renamed``:
    a name of the release before → module.name now; asking for it warns.

    >>> get, names = late("accountant", {"errors": "InvalidValue PrivacyError"})
    >>> get("InvalidValue")
    <class 'accountant.errors.InvalidValue'>
    >>> get("nothing")
    Traceback (most recent call last):
    AttributeError: module 'accountant' has no attribute 'nothing'
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> object:
        if name in home_of:
            found: object = getattr(import_module(f"{package}.{home_of[name]}"), name)
            setattr(sys.modules[package], name, found)
            return found
        if renamed and name in renamed:
            module, _, now = renamed[name].rpartition(".")
            warn_renamed(f"{package}.{name}", renamed[name])
            return getattr(import_module(f"{package}.{module}"), now)
        if not name.startswith("_"):
            try:
                return import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names


def warn_renamed(old: str, now: str) -> None:
    """Warn whoever calls the caller that a name is another now."""
    message = f"{old}: is called {now} now; the old name goes with the next release"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
