"""Every target there is."""

from __future__ import annotations

from dpsgd_torch.export.targets.arduino import Arduino
from dpsgd_torch.export.targets.arduino_library import ArduinoLibrary
from dpsgd_torch.export.targets.base import TargetKind
from dpsgd_torch.export.targets.c import C
from dpsgd_torch.export.targets.cmake import CMake
from dpsgd_torch.export.targets.esp_idf import EspIdf
from dpsgd_torch.export.targets.onnx import Onnx
from dpsgd_torch.export.targets.platformio import PlatformIO
from dpsgd_torch.export.targets.tflite import Header, TensorFlowLite
from dpsgd_torch.export.targets.zephyr import Zephyr

_KINDS: tuple[TargetKind, ...] = (
    Onnx(), TensorFlowLite(), Header(), C(), Arduino(), ArduinoLibrary(), PlatformIO(), Zephyr(),
    EspIdf(), CMake(),
)  # fmt: skip

TARGETS = {kind.name: kind for kind in _KINDS}
"""Name → target, in the order in which they are told."""
