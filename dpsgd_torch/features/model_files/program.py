"""A frozen model as it is run, whatever kind of file it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dpsgd_torch.errors import ConfigError, shown

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Program:
    """``run`` takes (rows, …) float32 and gives what the model says of each.

    ``takes`` is the shape that the file declares, rows first, None where any number will do; None
    where it declares none.
    """

    run: Callable[[torch.Tensor], Any]
    takes: Shape | None = None


def refused(name: str, why: str) -> ConfigError:
    """What to raise of the file of that name; ``why`` says rule and next move."""
    return ConfigError(f"features_from = {name}: {why}")


def only(name: str, what: str, found: list[Any]) -> Any:
    """The one there is.

    Raises:
        ConfigError: there are none, or several.
    """
    if len(found) != 1:
        raise refused(name, f"has {len(found)} {what}s {shown(found)}; export it with one")
    return found[0]
