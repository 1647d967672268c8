"""Execute notebooks, and write them with their outputs elsewhere: here they are kept bare.

    python docs/notebooks/execute.py                        all of them, into build/notebooks
    python docs/notebooks/execute.py NAME.ipynb --out DIR   one of them
    python docs/notebooks/execute.py --strip                take outputs out of those kept here

DPSGD_NOTEBOOK=small runs them at the size of the tests: seconds each, and no download.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

HERE = Path(__file__).parent
OUT = Path("build/notebooks")
_CELL_SECONDS = 3600
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_INLINE = "module://matplotlib_inline.backend_inline"  # whatever the shell draws with


def executed(path: Path) -> NotebookNode:
    """The notebook with its outputs, run from an empty folder by the Python that runs this.

    Raises:
        CellExecutionError: a cell failed.
        ValueError: a cell warned: what is published does not.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        client = NotebookClient(
            notebook,
            timeout=_CELL_SECONDS,
            kernel_name="python3",
            coalesce_streams=True,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": scratch}},
        )
        client.execute(env={**os.environ, "MPLBACKEND": _INLINE})
    notebook.metadata["size"] = os.environ.get("DPSGD_NOTEBOOK", "full")
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr" and "Warning" in output.text:
                said = " ".join(output.text.split())
                raise ValueError(f"cell {cell.id}: warns: {said}; mend the cell")
    return notebook


def stripped(path: Path) -> NotebookNode:
    """The notebook without outputs and execution counts."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all beside this script")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where to (default: {OUT})")
    parser.add_argument("--strip", action="store_true", help="take outputs out, in place, instead")
    given = parser.parse_args()
    for path in given.notebooks or sorted(HERE.glob("*.ipynb")):
        if given.strip:
            nbformat.write(stripped(path), path)
            continue
        try:
            notebook = executed(path)
        except (CellExecutionError, ValueError) as error:
            print(f"error: {path.name}: {_COLOURS.sub('', str(error))}", file=sys.stderr)
            return 1
        given.out.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, given.out / path.name)
        print(given.out / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
