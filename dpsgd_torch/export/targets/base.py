"""The interface of a target: what it is called, in which numbers it is, and its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # back ends are loaded when files are made: --help names targets without them
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject


class TargetKind(ABC):
    """What ``--to NAME`` makes; one file a target, one line in ``registry.py``.

    ``integers``: whether in integers (True) or float32, the usual first. ``holds_c``: to be
    compiled. ``library``: called like its run. ``own_folder``: the folder must be called like what
    is in it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    integers: ClassVar[tuple[bool, ...]] = (True,)
    holds_c: ClassVar[bool] = False
    library: ClassVar[bool] = False
    own_folder: ClassVar[bool] = False

    @abstractmethod
    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        """Path in the folder → content; ``program`` is there where the target is in integers.

        ``name``: of what is made, where that has one.
        """

    def archive(self, name: str) -> str:
        """Of the one zip, and of the folder in it, that the files come in; "": they lie bare."""
        return ""


def encoded(texts: dict[str, str]) -> dict[str, bytes]:
    """Files of text, in UTF-8."""
    return {path: text.encode() for path, text in texts.items()}
