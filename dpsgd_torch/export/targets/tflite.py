"""TensorFlow Lite: a flatbuffer, or the same as a C array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpsgd_torch.export.targets.base import TargetKind, encoded

if TYPE_CHECKING:
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject


class TensorFlowLite(TargetKind):
    name = "tflite"
    about = "model.tflite in float32; with --int8 in integers, as TensorFlow Lite Micro runs it"
    integers = (False, True)

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        return {"model_int8.tflite" if program else "model.tflite": _flat(subject, program)}


class Header(TargetKind):
    name = "header"
    about = "model.h: the .tflite in integers as a C array (--no-int8: in float32)"
    integers = (True, False)

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        from dpsgd_torch.export.to_header import to_header

        told = program.provenance if program else subject.provenance
        return encoded({"model.h": to_header(_flat(subject, program), told)})


def _flat(subject: Subject, program: Program | None) -> bytes:
    from dpsgd_torch.export.from_onnx import from_onnx
    from dpsgd_torch.export.to_tflite import to_float_tflite, to_int8_tflite

    if program:
        return to_int8_tflite(program)
    return to_float_tflite(from_onnx(subject.graph), subject.provenance)
