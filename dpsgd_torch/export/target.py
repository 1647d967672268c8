"""What can be made of a model, and whether in integers."""

from __future__ import annotations

from dataclasses import dataclass

from dpsgd_torch.errors import ExportError

TARGETS = {
    "onnx": "model.onnx, opset 20, checked against torch",
    "tflite": "model.tflite in float32; with --int8 in integers, as TensorFlow Lite Micro runs it",
    "header": "model.h: the .tflite in integers as a C array (--no-int8: in float32)",
    "c": "model.c and model.h: portable C99, no library, no heap",
    "arduino": "a sketch folder: the C, and a sketch that feeds it",
}

CALIBRATIONS = {
    "plain": "ranges of the inputs that were made up, and a quarter more",
    "improved": "ranges of all but one value in 10,000 at each end",
    "all": "that, channels equalised between layers, and biases corrected",
}


@dataclass(frozen=True)
class Target:
    """One of ``TARGETS``, and what was asked of its numbers; None: as is usual there.

    >>> Target("c").in_integers, Target("onnx").in_integers, Target("header", False).in_integers
    (True, False, False)
    """

    to: str
    int8: bool | None = None

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise ExportError(f"to = {self.to!r}: must be one of {', '.join(TARGETS)}")
        if self.int8 is False and self.to in ("c", "arduino"):
            raise ExportError(f"int8 = False: {self.to} is in integers only; use --to tflite")
        if self.int8 and self.to == "onnx":
            raise ExportError("int8 = True: onnx is in float32 only; use --to tflite --int8")

    @property
    def in_integers(self) -> bool:
        if self.int8 is None:
            return self.to in ("header", "c", "arduino")
        return self.int8
