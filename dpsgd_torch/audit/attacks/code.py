"""What a training function is written in: its file, and those of its own that it imports."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def code_of(function: Callable[..., Any]) -> str:
    """SHA-256 of these files: scores of older code are another audit.

    A file is its own if it lies in the folder that the function's module is imported from, or
    below; what is imported inside a function counts too. Installed libraries do not.
    """
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").resolve()
        found = _with_imported(path, getattr(function, "__module__", ""))
        told = hashlib.sha256()
        for each in sorted(found):
            told.update(each.name.encode() + each.read_bytes())
        return told.hexdigest()[:16] if found else ""
    except (TypeError, OSError, SyntaxError, ValueError):
        return ""


def _with_imported(path: Path, module: str) -> set[Path]:
    top = path.parent
    for _ in range(module.count(".")):
        top = top.parent
    found, left = set[Path](), [path]
    while left:
        here = left.pop()
        if here in found or not here.is_file():
            continue
        found.add(here)
        if here.suffix == ".py":
            left += _imported(here, top)
    return found


def _imported(path: Path, top: Path) -> Iterator[Path]:
    """Files below ``top`` that may be what is imported there; not all exist."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names, start = [alias.name for alias in node.names], top
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else top
            above = f"{node.module}." if node.module else ""
            names = [above + alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                place = start.joinpath(*parts[:depth])
                yield from (place.with_name(place.name + ".py"), place / "__init__.py")
