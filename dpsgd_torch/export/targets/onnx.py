"""ONNX: the graph as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpsgd_torch.export.targets.base import TargetKind

if TYPE_CHECKING:
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject


class Onnx(TargetKind):
    name = "onnx"
    about = "model.onnx, opset 20, checked against torch"
    integers = (False,)

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        return {"model.onnx": subject.graph.SerializeToString()}
