"""The notebooks of docs/notebooks: kept bare, of public names alone, and run at a small size."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {
    "drug_responses": 6,
    "lab_accounting": 8,
    "microbatches_gestures_arduino": 4,
    "mnist_tutorial": 4,
    "subclassed_dropout": 2,
}
LONG = {"drug_responses"}
OURS = ("accountant", "dpsgd_torch")
DOORS = ("dpsgd_torch.train", "dpsgd_torch.export.__main__", "dpsgd_torch.schedules")
SHOWN = ("dpsgd_torch.tasks.", "dpsgd_torch.mechanisms.")  # what the docs point to by module


def named(paths):
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] if path.stem in LONG else [])
        for path in paths
    ]


def execute(*words):
    """The script, at the small size."""
    return subprocess.run(
        [sys.executable, FOLDER / "execute.py", *map(str, words)],
        env={**os.environ, "DPSGD_NOTEBOOK": "small"},
        capture_output=True, text=True,
    )  # fmt: skip


def left_over(notebook):
    """Ids of the cells that hold what a run left in them."""
    return [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None)
    ]


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def hidden_names(notebook):
    """What it imports of ours that no list of public names has."""
    found = []
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in getattr(node, "names", ())]
        if isinstance(node, ast.Import):
            found += [name for name in names if name.split(".")[0] in OURS]
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
            public = getattr(importlib.import_module(node.module), "__all__", None)
            by_module = node.module in DOORS or node.module.startswith(SHOWN)
            if public is not None:
                found += [f"{node.module}.{name}" for name in names if name not in public]
            elif not by_module or any(name.startswith("_") for name in names):
                found.append(node.module)
    return found


def test_there_are_the_five_notebooks():
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = left_over(nbformat.read(path, as_version=4))
    assert not cells, f"{path.name}: python docs/notebooks/execute.py {path.name} --strip"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_alone(path):
    assert hidden_names(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_a_notebook_runs_and_shows_its_pictures_and_an_epsilon(path, tmp_path):
    ended = execute(path, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    outputs = outputs_of(nbformat.read(tmp_path / path.name, as_version=4))
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[path.stem]
    assert any("ε = " in output.get("text", "") for output in outputs)
    assert left_over(nbformat.read(path, as_version=4)) == []


def written(path, *cells):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Planted"), *cells]), path)
    return path


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("assert 1 + 1 == 3, 'one too many'", "AssertionError: one too many"),
        ("import warnings; warnings.warn('old news')", "UserWarning: old news"),
    ],
)
def test_a_cell_that_fails_or_warns_ends_in_an_error(source, told, tmp_path):
    path = written(tmp_path / "planted.ipynb", new_code_cell(source))
    ended = execute(path, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: planted.ipynb")
    assert told in ended.stderr
    assert "Traceback (most recent call last):\n  File" not in ended.stderr  # of the script
    assert not (tmp_path / "out").exists()


def test_outputs_that_were_left_are_found_and_stripped(tmp_path):
    said = new_code_cell("1 + 1", outputs=[new_output("stream", text="2")])
    counted = new_code_cell("2 + 2", execution_count=7)
    path = written(tmp_path / "planted.ipynb", said, counted)
    assert left_over(nbformat.read(path, as_version=4)) == [said.id, counted.id]
    ended = execute(path, "--strip")
    assert ended.returncode == 0, ended.stderr
    assert left_over(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from dpsgd_torch import _trainer",
        "from dpsgd_torch.training.loop import train",
        "from dpsgd_torch.mechanisms.laplace import _GRID",
        "import dpsgd_torch.gradients",
        "from accountant import late",
    ],
)
def test_a_planted_import_of_what_is_not_public_is_found(source):
    assert hidden_names(new_notebook(cells=[new_code_cell(source)])) != []
