"""A model on its way to files."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from torch import nn

from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.frontend.stream import Stream


@dataclass(frozen=True)
class Subject:
    """A model on its way: its graph, the module it is of (None: the graph is all there is), what
    its numbers mean, and the lines that every file carries."""

    graph: onnx.ModelProto
    model: nn.Module | None
    declared: Declared
    provenance: dict[str, str]
    stream: Stream | None = None
    """How a sketch answers all the time; None: when it is asked."""
