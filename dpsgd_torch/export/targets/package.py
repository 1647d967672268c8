"""C with the papers that a build system wants: folders, manifests, an example."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpsgd_torch.errors import ExportError, shown
from dpsgd_torch.export.targets.base import TargetKind, encoded

if TYPE_CHECKING:
    from dpsgd_torch.export.declared import Declared
    from dpsgd_torch.export.program import Program
    from dpsgd_torch.export.subject import Subject

VERSION = "1.0.0"
_LONGEST = 63  # characters of an Arduino library's name


@dataclass(frozen=True)
class Library:
    """A model as a library: its name begins every name in its C, so that two get along."""

    name: str
    program: Program
    declared: Declared

    @property
    def upper(self) -> str:
        return self.name.upper()

    @property
    def title(self) -> str:
        """One line of ASCII without any name that is not ours."""
        sizes = self.program.input.size, self.program.output.size
        return "A neural network in int8: {} inputs, {} outputs.".format(*sizes)

    @property
    def about(self) -> list[str]:
        """Where the model comes from and what is promised of it, as plain lines."""
        from dpsgd_torch.export.c_text import plain

        told = [f"{key}: {value}" for key, value in self.program.provenance.items()]
        return [self.title, *map(plain, told)]

    def c_files(self, sources: str, headers: str) -> dict[str, str]:
        """The model's source and header, in these folders."""
        from dpsgd_torch.export.to_c import to_c

        c = to_c(self.program, self.name)
        return {f"{headers if path.endswith('.h') else sources}{path}": c[path] for path in c}

    def sketch(self) -> str:
        """For an Arduino: reads a sensor or the serial port."""
        from dpsgd_torch.export.to_arduino import sketch

        facts = self.declared
        return sketch(
            self.program, self.name, output=facts.output, input_range=facts.input_range,
            prefix=self.name,
        )  # fmt: skip

    def example(self) -> str:
        """In C, for whatever has a ``main`` or an ``app_main``."""
        from dpsgd_torch.export.to_arduino import example, text_of

        title = f"{self.name}: an example that needs no machine-learning library."
        ends = self.declared.input_range
        return example(
            text_of("classify.c"), title, self.program, input_range=ends, facts={}, prefix=self.name
        )

    @property
    def feels_motion(self) -> bool:
        from dpsgd_torch.export.to_arduino import feels_motion

        return feels_motion(self.program)


class Package(TargetKind):
    """A target whose C lies as its build system wants it, called like the run or the folder."""

    holds_c = True
    library = True

    def files(self, subject: Subject, program: Program | None, name: str) -> dict[str, bytes]:
        from dpsgd_torch.export.to_arduino import labelled

        assert program is not None
        library = Library(library_name(name), labelled(program), subject.declared)
        papers = {path: _headed(path, text, library) for path, text in self.papers(library).items()}
        return encoded({**papers, **self.code(library)})

    @abstractmethod
    def papers(self, library: Library) -> dict[str, str]:
        """What the build system reads; @NAME@, @UPPER@, @VERSION@ and @ABOUT@ stand in it."""

    @abstractmethod
    def code(self, library: Library) -> dict[str, str]:
        """What the compiler reads."""


def _headed(path: str, text: str, library: Library) -> str:
    """Filled in, below where it comes from. JSON has no comments: it says that in its values."""
    if path.endswith(".json"):
        return text
    text = text.replace("@NAME@", library.name).replace("@UPPER@", library.upper)
    text = text.replace("@TITLE@", library.title).replace("@VERSION@", VERSION)
    text = text.replace("@ABOUT@", " / ".join(library.about[1:]))
    mark = ";" if path.endswith(".ini") else "#"
    return "".join(f"{mark} {line}\n" for line in library.about) + text


def library_name(name: str) -> str:
    """A C identifier in lower case that no header of a system has: of library, files, functions.

    >>> library_name("My run-7"), library_name("time"), library_name("my_run_7_model")
    ('my_run_7_model', 'time_model', 'my_run_7_model')
    >>> library_name("../..")
    Traceback (most recent call last):
    dpsgd_torch.errors.ExportError: name = '../..': a library is called like its folder, with ...
    """
    from dpsgd_torch.export.declared import is_plain

    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "_", latin).strip("_")
    if words[:1].isdigit():
        words = f"run_{words}"
    called = words if words.split("_")[-1] == "model" else f"{words}_model"
    if not is_plain(name) or not words or len(called) > _LONGEST:
        raise ExportError(
            f"name = {shown(name)}: a library is called like its folder, with letters of ASCII or "
            f"digits in it, {_LONGEST} characters at most; name another folder to write to"
        )
    return called
