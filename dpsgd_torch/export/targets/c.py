"""Portable C99, alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpsgd_torch.export.targets.base import TargetKind, encoded

if TYPE_CHECKING:
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject


class C(TargetKind):
    name = "c"
    about = "model.c and model.h: portable C99, no library, no heap"
    holds_c = True

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        from dpsgd_torch.export.to_c import to_c

        assert program is not None
        return encoded(to_c(program))
