"""Packages of the extra ``integrations``, loaded when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dpsgd_torch.errors import TrainingError


def needed(module: str, package: str) -> Any:
    """The module of a package that may be missing.

    Raises:
        TrainingError: it is.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{package}: is missing ({error.name}); pip install 'dpsgd_torch[integrations]'"
        ) from None
