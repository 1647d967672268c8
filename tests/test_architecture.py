"""Imports point one way, files stay short, and the accountant stands alone."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> str:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_no_import_arrow_turns_round():
    """The contracts are in setup.cfg."""
    assert "4 kept, 0 broken" in lint(ROOT)


@pytest.mark.parametrize("line", ["import torch", "import dpsgd_torch", "from opacus import x"])
def test_an_arrow_that_turns_round_is_caught(tmp_path, line):
    planted = tmp_path / "accountant"
    planted.mkdir()
    (planted / "__init__.py").write_text(line + "\n")
    (tmp_path / "dpsgd_torch").mkdir()
    (tmp_path / "dpsgd_torch" / "__init__.py").write_text("")
    settings = (ROOT / "setup.cfg").read_text().split("[importlinter:contract:tasks]")[0]
    (tmp_path / "setup.cfg").write_text(settings)
    assert "0 kept, 1 broken" in lint(tmp_path)


def test_the_accountant_loads_without_torch():
    code = "import sys, accountant; print({'torch', 'opacus', 'dpsgd_torch'} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "set()"


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_the_types_reach_whoever_installs_the_package(package):
    """PEP 561: the marker lies in the package, and setup.cfg sends it along."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert (ROOT / package / "py.typed").exists()
    assert "py.typed" in settings["options.package_data"][package].split()


def test_files_can_be_held_in_mind():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("accountant", "dpsgd_torch", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 350
    }
    assert not long
