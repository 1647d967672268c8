"""Execute notebooks, and write each as a Markdown page with its pictures beside it.

    python docs/notebooks/execute.py                      all of them, pages beside the notebooks
    python docs/notebooks/execute.py NAME.ipynb --out DIR one of them, its page elsewhere
    python docs/notebooks/execute.py --strip              take outputs out of the notebooks

DPSGD_NOTEBOOK=small runs them at the size of the tests: seconds each, and no download.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from binascii import a2b_base64
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

HERE = Path(__file__).parent
_CELL_SECONDS = 3600
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours, as terminals take them
_INLINE = "module://matplotlib_inline.backend_inline"


def executed(path: Path) -> NotebookNode:
    """The notebook with its outputs, run from an empty folder by the Python that runs this.

    Raises:
        CellExecutionError: a cell failed.
        ValueError: a cell warned: a page that is published does not.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        client = NotebookClient(
            notebook,
            timeout=_CELL_SECONDS,
            kernel_name="python3",
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": scratch}},
        )
        client.execute(env={**os.environ, "MPLBACKEND": _INLINE})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr" and "Warning" in output.text:
                said = " ".join(output.text.split())
                raise ValueError(f"{path.name}, cell {cell.id}: warns: {said}; mend the cell")
    return notebook


def page(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Markdown, and the pictures it shows by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    heading = name
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
            if len(parts) == 1:
                parts.append(f"[Open this page as a notebook]({name}.ipynb)")
            continue
        parts.append(_fenced(cell.source, "python"))
        for number, output in enumerate(cell.outputs):
            file = f"{name}_files/{cell.id}-{number}.png"
            if picture := output.get("data", {}).get("image/png"):
                pictures[file] = a2b_base64(picture)
                parts.append(f"![{heading}]({file})")
            else:
                parts.extend(_text(output))
    return "\n\n".join(parts) + "\n", pictures


def _text(output: NotebookNode) -> Iterator[str]:
    if output.output_type == "stream":
        if output.name == "stdout":
            yield _fenced(output.text.rstrip("\n"), "text")
        return
    data = output.get("data", {})
    for kind in ("text/markdown", "text/html"):
        if kind in data:
            yield data[kind].strip()
            return
    if "text/plain" in data:
        yield _fenced(data["text/plain"], "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{_ESCAPES.sub('', text)}\n```"


def strip(path: Path) -> None:
    """Take outputs and execution counts out of a notebook, in place."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in this folder")
    parser.add_argument("--out", type=Path, default=HERE, help="where pages go")
    parser.add_argument("--strip", action="store_true", help="take outputs out instead")
    given = parser.parse_args()
    for path in given.notebooks or sorted(HERE.glob("*.ipynb")):
        if given.strip:
            strip(path)
            continue
        try:
            text, pictures = page(executed(path), path.stem)
        except (CellExecutionError, ValueError) as error:
            print(f"error: {path.name}: {_ESCAPES.sub('', str(error))}", file=sys.stderr)
            return 1
        (given.out / f"{path.stem}_files").mkdir(parents=True, exist_ok=True)
        for file, content in pictures.items():
            (given.out / file).write_bytes(content)
        (given.out / f"{path.stem}.md").write_text(text)
        print(f"{given.out / path.stem}.md: {len(pictures)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
