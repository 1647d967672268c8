"""Packages under the linters of their own build systems, where these are installed.

`make linters` installs them into an environment of their own; elsewhere they are looked for on the
PATH. None of them is needed to export.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hand_built_programs import gesture_program

from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.deliver import write_files
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.targets.registry import TARGETS

LINTERS = Path(__file__).parents[2] / "build/linters/bin"
EVIL = "*/ ${HOME} $(shell,touch evil) ]] @NAME@ ;#\"'\\ ü: {a: [%s]}"


@pytest.fixture
def package(tmp_path):
    """A function: target → the folder that it makes, of a model with a hostile run."""

    def made(to):
        program = dataclasses.replace(gesture_program(), provenance={"run": EVIL})
        subject = Subject(None, None, Declared((714,), (-1.0, 1.0), program.labels), {})
        write_files(tmp_path / "made", TARGETS[to].files(subject, program, "wave"))
        return tmp_path / "made"

    return made


def linted(folder, tool, *words, **variables):
    """(status, what it said) of a linter."""
    here = os.pathsep.join([str(LINTERS), os.environ["PATH"], os.path.dirname(sys.executable)])
    found = shutil.which(tool, path=here)
    if not found:
        pytest.skip(f"the linter {tool} is not installed: make linters")
    ended = subprocess.run(
        [found, *words], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "HOME": str(folder.parent), **variables},
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def platformio(folder, *words):
    core = str(folder.parent / "core")
    quiet = {"PLATFORMIO_CORE_DIR": core, "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no"}
    return linted(folder, "pio", *words, **quiet)


def test_platformio_takes_the_project_and_refuses_a_torn_one(package):
    folder = package("platformio")
    status, said = platformio(folder, "project", "config", "--lint")
    assert status == 0, said
    assert "is free from linting errors" in said
    ini = folder / "platformio.ini"
    ini.write_text(ini.read_text().replace("framework", "[broken\nframework"))
    status, said = platformio(folder, "project", "config", "--lint")
    assert "is free from linting errors" not in said


def test_platformio_packs_the_library_and_refuses_a_name_less_one(package):
    folder = package("platformio")
    words = ["pkg", "pack", str(folder), "-o", str(folder.parent)]
    status, said = platformio(folder, *words)
    assert status == 0, said
    assert "wave_model-1.0.0.tar.gz" in said
    manifest = folder / "library.json"
    manifest.write_text(manifest.read_text().replace('"name"', '"nome"'))
    assert platformio(folder, *words)[0] != 0


def test_the_component_manager_takes_the_manifest_and_refuses_a_bad_version(package):
    folder = package("esp-idf")
    status, said = linted(folder, "compote", "manifest", "lint", str(folder))
    assert status == 0, said
    manifest = folder / "idf_component.yml"
    manifest.write_text(manifest.read_text().replace("1.0.0", "one"))
    status, said = linted(folder, "compote", "manifest", "lint", str(folder))
    assert status == 1, said


def test_kconfig_takes_the_modules_symbol_and_runs_nothing_of_a_comment(package):
    folder = package("zephyr")
    words = ["--header-path", "made.h", "--config-out", "made.conf", "Kconfig"]
    asked = str(folder / "samples" / "classify" / "prj.conf")
    alone = folder / "alone.conf"  # the module's line: the others are of Zephyr's own Kconfig
    with open(asked) as file:
        alone.write_text("".join(line for line in file if "WAVE_MODEL" in line))
    status, said = linted(folder, "genconfig", *words, KCONFIG_CONFIG=str(alone))
    assert status == 0, said
    assert "warning" not in said
    assert "CONFIG_WAVE_MODEL=y" in (folder / "made.conf").read_text()
    assert not list(folder.rglob("evil"))
