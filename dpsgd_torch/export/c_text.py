"""Pieces of C source text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_WIDTH = 98


@dataclass(frozen=True)
class StepText:
    """``call`` holds {input} (or {input0}, {input1}, …), {output} and {scratch}."""

    kernels: tuple[str, ...]
    call: str
    constants: tuple[str, ...] = ()
    scratch: int = 0
    chunks: int = 1
    """Sums per channel, see ``c_layout.Rows``."""


def source(name: str) -> str:
    """One of the kernels' source files."""
    return (files("dpsgd_torch.export") / "c" / f"{name}.c").read_text(encoding="utf-8")


def with_prefix(text: str, prefix: str) -> str:
    """Kernels are written as ``model_…`` and ``MODEL_…``; here they get the model's own name."""
    text = re.sub(r"\bmodel(?=_|\.[ch]\b)", prefix, text)
    return re.sub(r"\bMODEL_", f"{prefix.upper()}_", text)


def array(kind: str, name: str, values: NDArray[np.integer]) -> str:
    """A constant in flash.

    >>> print(array("int8_t", "model_table", np.array([1, -2])))
    static const int8_t model_table[2] = {
        1, -2,
    };
    """
    flat = values.reshape(-1)
    if kind == "uint32_t":
        words = [f"0x{value:08x}u" for value in flat.tolist()]
    else:
        words = [literal(value) for value in flat.tolist()]
    body = "\n".join(_lines(words))
    return f"static const {kind} {name}[{len(words)}] = {{\n{body}\n}};"


def literal(value: int) -> str:
    """An int32 in C, where -2147483648 is not a literal."""
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def comment(lines: Iterable[str]) -> str:
    """A block comment that no text inside can end.

    >>> print(comment(["evil */ int x; /*"]))
    /* evil * / int x; / * */
    """
    safe = [plain(line).replace("*/", "* /").replace("/*", "/ *") for line in lines]
    return "/* " + "\n * ".join(safe) + " */"


def plain(line: str) -> str:
    """One line of printable ASCII without backslashes, whatever the text.

    >>> plain("ε = 3\\n  evil")
    'epsilon = 3 evil'
    """
    return _printable(re.sub(r"\s+", " ", line).strip())


def string(text: str) -> str:
    r"""A string literal of UTF-8 bytes.

    >>> print(string('né "?"'))
    "n\303\251 \"\?\""
    """
    out = []
    for byte in text.encode("utf-8"):
        character = chr(byte)
        if character in '"\\?':
            out.append("\\" + character)
        elif 32 <= byte < 127:
            out.append(character)
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def _printable(line: str) -> str:
    """ASCII without backslashes, which could join lines or start a universal character name."""
    named = line.replace("ε", "epsilon").replace("δ", "delta")
    plain = "".join(c if " " <= c <= "~" else "?" for c in named).replace("\\", "/")
    return re.sub(r"\?(?=\?)", "? ", plain)  # no two in a row, which could begin a trigraph


def _lines(words: list[str]) -> Iterable[str]:
    line = "   "
    for word in words:
        if len(line) + len(word) + 2 > _WIDTH:
            yield line
            line = "   "
        line += f" {word},"
    yield line
