"""Paragraphs of installed packages' docstrings: real text that is there without a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from dpsgd_torch.tasks.text.records import Texts

NOTE = (
    "Paragraphs of the docstrings of the NumPy, SciPy and Matplotlib that are installed, labelled "
    "by the section they stand in. All are public: they stand in for messages that are private, "
    "and a file for their author. Other versions of these packages hold other texts."
)
_LIBRARIES = ("numpy", "scipy", "matplotlib")  # which head sections alike, and which we need anyway
_SECTIONS = ("Parameters", "Returns", "Notes", "Examples", "See Also", "References")
_FIRST = "Summary"  # what stands above the first heading
_LEFT_OUT = ("test", "_vendor")
_SHORTEST = 40  # characters
_DOCSTRING = re.compile(r':[ \t]*\n(?:[ \t]*\n)*[ \t]*[rR]?"""(.*?)"""', re.DOTALL)
_HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}[ \t]*$", re.MULTILINE)
_BETWEEN = re.compile(r"\n[ \t]*\n")


def docstring_texts() -> Texts:
    """Each paragraph of 40 characters or more, once; its section the label, its file the author.

    Files are read as text, and no module is loaded: what stands in triple quotes at the beginning
    of a block.
    """
    rows: dict[str, tuple[str, str]] = {}
    for path, name in _files():
        for found in _DOCSTRING.findall(path.read_text(encoding="utf-8", errors="replace")):
            for section, text in paragraphs(inspect.cleandoc(found)):
                rows.setdefault(text, (section, name))
    labels, authors = zip(*rows.values(), strict=True)
    return Texts(tuple(rows), labels, authors)


def paragraphs(docstring: str) -> Iterator[tuple[str, str]]:
    r"""(section, paragraph) of a docstring that has sections; headings are left out.

    >>> text = "Return the Fourier transform of some array.\n\nNotes\n-----\n"
    >>> list(paragraphs(text + "It is computed by the algorithm of Cooley and Tukey."))
    [('Summary', 'Return the Fourier transform of some array.'),
     ('Notes', 'It is computed by the algorithm of Cooley and Tukey.')]
    """
    first, *rest = _HEADING.split(docstring)
    if not rest:
        return
    for section, body in [(_FIRST, first), *zip(rest[::2], rest[1::2], strict=True)]:
        if section in (_FIRST, *_SECTIONS):
            for part in _BETWEEN.split(body):
                text = inspect.cleandoc(part).strip()
                if len(text) >= _SHORTEST:
                    yield section, text


def _files() -> Iterator[tuple[Path, str]]:
    """(file, its name) in one order on every machine."""
    for library in _LIBRARIES:
        spec = find_spec(library)
        assert spec  # a package that ours cannot be without
        assert spec.submodule_search_locations
        root = Path(spec.submodule_search_locations[0])
        for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
            if not any(part in name for part in _LEFT_OUT):
                yield root / name, f"{library}/{name}"
