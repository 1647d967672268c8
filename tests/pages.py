"""The site's pages and the README as programs, and as commands that are shown."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(`{3,})([^`]*)$")
_HIDDEN, _NOT_RUN = "<!-- runs first", re.compile(r"<!-- not run: .{8,} -->")


@dataclass(frozen=True)
class Block:
    """A fenced block, or a hidden one in a comment: what it is written in, where it begins."""

    kind: str
    line: int
    code: str


def pages() -> list[str]:
    """README and all of the site, as paths from the root."""
    found = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(text: str) -> list[Block]:
    """Every fenced block, hidden set-ups as python; what says why it is not run is "shown"."""
    found: list[Block] = []
    end = kind = ""
    held: list[str] = []
    start, spared = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if end:
            if line.strip() == end:
                found.append(Block(kind, start, "\n".join(held) + "\n"))
                end, held, spared = "", [], False
            else:
                held.append(line)
        elif line.strip() == _HIDDEN:
            end, kind, start = "-->", "python", number + 1
        elif fence:
            end, start = fence[1], number + 1
            kind = "shown" if spared else fence[2].strip()
        elif _NOT_RUN.fullmatch(line.strip()):
            spared = True
    assert not end, f"a block that begins at line {start} has no end"
    return found


def programs(text: str) -> list[Block]:
    """The blocks that run: python and bash."""
    return [block for block in blocks(text) if block.kind in ("python", "bash")]


def commands(text: str) -> list[list[str]]:
    """Commands in shown shell blocks, split as a shell splits them, variables filled in."""
    found, known = [], {}
    for block in blocks(text):
        if block.kind not in ("console", "bash"):
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and re.fullmatch(r"[A-Z]+=.*", words[0]):
                known[words[0].split("=")[0]] = words[0].split("=", 1)[1]
                continue
            filled = [
                part
                for word in words
                for part in (known[word[1:]].split() if word[1:] in known else [word])
            ]
            if filled:
                found.append(filled)
    return found
