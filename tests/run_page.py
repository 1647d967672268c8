"""Run one page's code blocks in order, in this process: ``python run_page.py PAGE``."""

import subprocess
import sys
from pathlib import Path

from pages import programs


def run(page: Path) -> None:
    """Tracebacks name the page and its line."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in programs(page.read_text()):
        if block.kind == "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)
        else:
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
