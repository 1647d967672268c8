"""What import-linter says of a copy of the packages, one planted text after another.

A process of its own, since import-linter asks Python where the packages lie:
``python planted_arrows.py FOLDER`` reads [[file, text], …] as JSON and answers what import-linter
prints for each (text is added to file, or makes it, and is gone again for the next), as JSON.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure


def lint(folder: Path) -> str:
    """The whole report."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        lint_imports(str(folder / "setup.cfg"), cache_dir=None, no_logo=True)
    return printed.getvalue()


def lint_with(folder: Path, file: Path, text: str) -> str:
    """The report while ``text`` stands at the end of ``file``."""
    before = file.read_text() if file.exists() else None
    file.write_text((before or "") + text)
    try:
        return lint(folder)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    sys.path.insert(0, str(root))
    configure()
    print(json.dumps([lint_with(root, root / file, text) for file, text in json.load(sys.stdin)]))
