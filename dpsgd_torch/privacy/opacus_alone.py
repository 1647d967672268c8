"""Modules of Opacus that need nothing else of it, without the rest, which takes longer to load."""

from __future__ import annotations

import functools
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any


@functools.cache
def opacus_alone(name: str) -> Any:
    """The module ``opacus.<name>``, run from its file: Opacus's ``__init__`` imports its engine.

    Raises:
        ImportError: Opacus is not installed, or has no such module.

    >>> opacus_alone("accountants.analysis.rdp").compute_rdp(
    ...     q=1.0, noise_multiplier=2.0, steps=1, orders=[8.0]
    ... )
    array([1.])
    """
    package, (*folders, _) = find_spec("opacus"), name.split(".")
    inside = (package and package.submodule_search_locations) or ()
    found = PathFinder.find_spec(
        f"opacus.{name}", [str(Path(folder, *folders)) for folder in inside]
    )
    if not found or not found.loader:
        missing = f"opacus.{name}" if package else "opacus"
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module
