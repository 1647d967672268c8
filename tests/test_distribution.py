"""A wheel and a source distribution that install and run away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
AWAY = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}


def run(*command, cwd, status=0):
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=AWAY, capture_output=True, text=True
    )
    assert ended.returncode == status, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


def own_files() -> list[str]:
    """What a checkout holds; of a source distribution, what was unpacked."""
    if not (ROOT / ".git").exists():
        listed = (ROOT / next(ROOT.glob("*.egg-info")).name / "SOURCES.txt").read_text().split("\n")
        return [name for name in listed if name and ".egg-info" not in name]
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with both, built in a copy; the wheel is made from the source distribution."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in own_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=copy)
    return out


@pytest.fixture(scope="module")
def wheel(built):
    [file] = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


@pytest.fixture(scope="module")
def bare(built, tmp_path_factory):
    """An environment with the wheel, and the packages of this one but for ours."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    [wheel] = built.glob("*.whl")
    install = ("install", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    inside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                      cwd=folder).strip())  # fmt: skip
    # a folder that stands in a .pth is searched, and its own .pth files, as ours is, are not read
    (inside / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_the_source_distribution_holds_every_file_of_the_checkout(built):
    [file] = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not set(own_files()) - held


def test_the_wheel_holds_every_file_of_both_packages_and_no_other(wheel):
    packages = ("accountant/", "dpsgd_torch/")
    own = {name for name in own_files() if name.startswith(packages)}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == own
    assert {f"{package}py.typed" for package in packages} <= held


def test_its_metadata_says_what_it_is_and_what_its_extras_are(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    told = message_from_string(wheel.read(name).decode())
    assert (told["Name"], told["License-Expression"]) == ("dpsgd_torch", "Apache-2.0")
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    assert {"tables", "export", "mcu", "search", "models"} <= set(told.get_all("Provides-Extra"))
    kinds = told.get_all("Classifier")
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(kinds)
    needed = [need for need in told.get_all("Requires-Dist") if "extra ==" not in need]
    names = {re.match(r"[\w-]+", need).group() for need in needed}
    assert names >= {"torch", "opacus", "numpy", "scipy"}


def test_it_is_what_runs_and_not_the_checkout(bare):
    code = "import accountant, dpsgd_torch; print(accountant.__file__, dpsgd_torch.__file__)"
    found = run(bare / "venv/bin/python", "-c", code, cwd=bare).split()
    assert all(Path(file).is_relative_to(bare / "venv") for file in found)


def test_its_command_tells_what_there_is(bare):
    dpsgd = bare / "venv/bin/dpsgd"
    assert run(dpsgd, "--help", cwd=bare).startswith("usage: dpsgd COMMAND")
    assert "usage: dpsgd train" in run(dpsgd, "train", "--help", cwd=bare)
    refused = run(dpsgd, "train", "--epochs", 0, cwd=bare, status=2)
    assert refused.startswith("error: epochs = 0")
    asked = ["--n", 6000, "--batch-size", 250, "--noise-multiplier", 1.3, "--epochs", 2]
    answers = [
        run(*command, "epsilon", *asked, "--delta", 1e-5, cwd=bare)
        for command in ([dpsgd], [bare / "venv/bin/python", "-m", "accountant"])
    ]
    assert answers[0] == answers[1]
    assert answers[0].startswith("ε = ")


def test_it_trains_reports_and_exports_from_a_folder_of_its_own(bare):
    dpsgd, folder = bare / "venv/bin/dpsgd", bare / "run"
    run(dpsgd, "train", "--preset", "digits", "--epochs", 1, "--out", folder, cwd=bare)
    assert "<html" in (folder / "report.html").read_text()
    assert "ε" in (folder / "statement.txt").read_text()
    run(dpsgd, "export", folder, "--to", "c", cwd=bare)
    assert list((folder / "export").rglob("*.c"))
    run(bare / "venv/bin/python", "-m", "dpsgd_torch", "ledger", folder / "ledger.sqlite",
        "--delta", 1e-5, cwd=bare)  # fmt: skip
