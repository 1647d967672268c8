"""Files stay short, no two import each other, and the accountant stands alone."""

import ast
import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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


def imports(root: Path) -> dict[str, set[str]]:
    """Which module imports which, for types alone included."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        wanted = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        found[name] = {module for module in wanted if module in files} - {name}
    return found


def in_circles(arrows: dict[str, set[str]]) -> set[str]:
    """The modules from which an arrow leads back, however long the way."""
    left = {name: set(targets) for name, targets in arrows.items()}
    while ends := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ends:
            del left[name]
    while starts := left.keys() - set().union(*left.values()):
        for name in starts:
            del left[name]
    return set(left)


def test_no_two_files_import_each_other_for_types_alone_either(tmp_path):
    for package in ("accountant", "dpsgd_torch"):
        shutil.copytree(ROOT / package, tmp_path / package)
    assert in_circles(imports(tmp_path)) == set()
    planted = tmp_path / "dpsgd_torch" / "training" / "loop.py"
    circle = "\nif TYPE_CHECKING:\n    from dpsgd_torch.training.trainer import Trainer\n"
    planted.write_text(planted.read_text() + circle)
    assert {"dpsgd_torch.training.loop", "dpsgd_torch.training.trainer"} <= in_circles(
        imports(tmp_path)
    )
