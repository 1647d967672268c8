"""Every target there is."""

from __future__ import annotations

from dpsgd_torch.export.targets.arduino import Arduino
from dpsgd_torch.export.targets.base import TargetKind
from dpsgd_torch.export.targets.c import C
from dpsgd_torch.export.targets.onnx import Onnx
from dpsgd_torch.export.targets.tflite import Header, TensorFlowLite

_KINDS: tuple[TargetKind, ...] = (Onnx(), TensorFlowLite(), Header(), C(), Arduino())

TARGETS = {kind.name: kind for kind in _KINDS}
"""Name → target, in the order in which they are told."""
