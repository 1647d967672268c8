"""Kinds of data that are recognised without a wrapper; each says None to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.loaders import of_dataset

Kind = Callable[[Any, str | torch.device, str], Data | None]

KINDS: tuple[Kind, ...] = (of_dataset,)
