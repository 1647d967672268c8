"""torchvision's data sets, also where its compiled operators do not fit the torch installed."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a Library takes its schemas along when it goes


def torchvision_datasets() -> ModuleType:
    """Import ``torchvision.datasets``.

    A torchvision wheel built for another torch build (CUDA beside a CPU torch, say) cannot load
    its operators and fails at import with ``operator torchvision::nms does not exist``, because
    it describes nms and qnms to torch's tracer. Data sets and transforms need neither, so their
    schemas are declared, without an implementation, and only when the import fails that way.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision.datasets")
