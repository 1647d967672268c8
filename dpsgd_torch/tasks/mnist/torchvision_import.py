"""torchvision's data sets, loaded when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType


def torchvision_datasets() -> ModuleType:
    """``torchvision.datasets``; ``import dpsgd_torch`` has mended its import where need be."""
    return importlib.import_module("torchvision.datasets")
