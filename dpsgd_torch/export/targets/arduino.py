"""An Arduino sketch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.targets.base import TargetKind, encoded

if TYPE_CHECKING:
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject


class Arduino(TargetKind):
    name = "arduino"
    about = "a sketch folder: the C, and a sketch that feeds it"
    holds_c = True
    own_folder = True

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        from dpsgd_torch.export.to_arduino import to_arduino

        assert program is not None
        facts = subject.declared
        try:
            texts = to_arduino(
                program,
                name,
                output=facts.output,
                input_range=facts.input_range,
                stream=subject.stream,
            )
        except ValueError as error:
            raise ExportError(str(error)) from error
        return encoded(texts)
