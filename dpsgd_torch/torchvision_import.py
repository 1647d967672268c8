"""torchvision's import, also where its compiled operators do not fit the torch installed.

A torchvision wheel built for another torch build (CUDA beside a CPU torch, say) cannot load its
operators and fails at import with ``operator torchvision::nms does not exist``, because it
describes nms and qnms to torch's tracer. Models, data sets and transforms need neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # a torch Library takes its schemas along when it goes


class _Loader:  # importlib.abc has the interface, and loads tempfile and shutil
    """torchvision's own, tried again with the operators declared where that is what it lacks."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__:
            module.__spec__.loader = module.__loader__ = self._own
        try:
            self._own.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _declare()
            self._own.exec_module(module)


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


def _declare() -> None:
    """Name the operators without implementing them."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    _declared.append(library)


def mend_import() -> None:
    """Let ``import torchvision`` work from here on; nothing is loaded before somebody imports it.

    Where it imports by itself, nothing is changed.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
