"""The import contract in setup.cfg names every room, and a wrong arrow in any of them breaks it."""

import configparser
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# room: file in it → what that must not import. Where two rooms are meant to be strangers, it is
# the stranger; elsewhere the room next above.
WRONG = {
    "assembly": [("assembly", "dpsgd_torch.run"), ("assembly", "dpsgd_torch.progress")],
    "config": [("config", "dpsgd_torch.presets"), ("config", "dpsgd_torch.training.trainer")],
    "errors": [("errors", "dpsgd_torch.layers"), ("errors", "dpsgd_torch.schedules")],
    "export": [
        ("export.api", "dpsgd_torch.config"),
        ("export.api", "dpsgd_torch.export.source"),
        ("export.saved_model", "dpsgd_torch.tasks.task"),
        ("export.saved_model", "dpsgd_torch.presets"),
        ("export.deliver", "dpsgd_torch.tasks.registry"),
        ("export.graph", "dpsgd_torch.config"),
        ("export.job", "dpsgd_torch.run"),
    ],
    "flags": [("flags", "dpsgd_torch.run"), ("flags", "dpsgd_torch.preparation")],
    "labels": [("labels", "dpsgd_torch.assembly")],
    "layers": [("layers", "dpsgd_torch.training.sites")],
    "mechanisms": [
        ("mechanisms.gaussian", "dpsgd_torch.plan"),
        ("mechanisms.statistics", "dpsgd_torch.tasks.task"),
        ("mechanisms.laplace", "dpsgd_torch.training.streams"),
        ("mechanisms.exponential", "dpsgd_torch.noise.base"),
        ("mechanisms.library", "dpsgd_torch.report.page"),
    ],
    "noise": [
        ("noise.base", "dpsgd_torch.training.steps"),
        ("noise.independent", "dpsgd_torch.plan"),
        ("noise.base", "dpsgd_torch.tasks.task"),
        ("noise.base", "dpsgd_torch.report.statement"),
        ("noise.base", "dpsgd_torch.config"),
    ],
    "outcome": [("outcome", "dpsgd_torch.progress")],
    "parts": [("parts", "dpsgd_torch.assembly")],
    "plan": [("plan", "dpsgd_torch.privacy"), ("plan", "dpsgd_torch.training.state")],
    "predict": [("predict", "dpsgd_torch.outcome")],
    "preparation": [("preparation", "dpsgd_torch.report.page")],
    "presets": [("presets", "dpsgd_torch.flags")],
    "privacy": [("privacy", "dpsgd_torch.config"), ("privacy", "dpsgd_torch.spent")],
    "progress": [("progress", "dpsgd_torch.run"), ("progress", "dpsgd_torch.assembly")],
    "report": [("report.page", "dpsgd_torch.run"), ("report.plots", "dpsgd_torch.assembly")],
    "run": [("run", "dpsgd_torch.searching.story"), ("run", "dpsgd_torch.train")],
    "samplers": [
        ("samplers.base", "dpsgd_torch.noise.base"),
        ("samplers.poisson", "dpsgd_torch.training.streams"),
        ("samplers.rows", "dpsgd_torch.tasks.task"),
        ("samplers.base", "dpsgd_torch.report.statement"),
        ("samplers.base", "dpsgd_torch.config"),
    ],
    "schedules": [("schedules", "dpsgd_torch.plan")],
    "search": [("search", "dpsgd_torch.train")],
    "searching": [("searching.story", "dpsgd_torch.search")],
    "shell": [("shell", "dpsgd_torch.run")],
    "spent": [("spent", "dpsgd_torch.training.charges"), ("spent", "dpsgd_torch.report.page")],
    "stored_config": [("stored_config", "dpsgd_torch.export.source")],
    "tasks": [
        ("tasks.task", "dpsgd_torch.training.tensors"),
        ("tasks.mnist", "dpsgd_torch.report.plots"),
        ("tasks.responses", "dpsgd_torch.mechanisms.statistics"),
        ("tasks.gestures", "dpsgd_torch.samplers.rows"),
        ("tasks.digits", "dpsgd_torch.noise.base"),
        ("tasks.registry", "dpsgd_torch.presets"),
        ("tasks.registry", "dpsgd_torch.config"),
    ],
    "train": [("train", "dpsgd_torch.search")],
    "training": [
        ("training.trainer", "dpsgd_torch.config"),
        ("training.trainer", "dpsgd_torch.presets"),
        ("training.loop", "dpsgd_torch.flags"),
        ("training.run_folder", "dpsgd_torch.export.saved_model"),
        ("training.history", "dpsgd_torch.report.plots"),
        ("training.steps", "dpsgd_torch.run"),
        ("training.tensors", "dpsgd_torch.tasks.task"),
        ("training.streams", "dpsgd_torch.searching.trials"),
        ("training.rehearsal.tried", "dpsgd_torch.stored_config"),
        ("training.rules", "dpsgd_torch.training.loop"),
        ("training.ghost", "dpsgd_torch.training.charges"),
        ("training.held_out", "pandas"),
    ],
    "version": [("version", "dpsgd_torch.config")],
    "witness": [("witness", "dpsgd_torch.spent"), ("witness", "dpsgd_torch.training.charges")],
}
ACCOUNTANT = [
    ("ledger", "torch"),
    ("peers", "opacus"),
    ("events", "dpsgd_torch"),
    ("renyi", "dpsgd_torch.samplers.base"),
    ("events", "accountant.rdp"),
    ("pld", "accountant.ledger"),
    ("ledger", "accountant.answers"),
    ("errors", "accountant.events"),
]
ARROWS = [
    *[(f"dpsgd_torch.{file}", wrong) for arrows in WRONG.values() for file, wrong in arrows],
    *[(f"accountant.{file}", wrong) for file, wrong in ACCOUNTANT],
    ("dpsgd_torch.__init__", "dpsgd_torch.config"),
    ("dpsgd_torch.__init__", "pandas"),
    ("dpsgd_torch.schedules", "dpsgd_torch"),  # the package's face brings training along
]
SHAPES = (
    "\nimport {}\n",
    "\n\ndef planted():\n    import {}\n",
    "\nif TYPE_CHECKING:\n    import {}\n",
)


def rooms(package: str, root: Path = ROOT) -> set[str]:
    """The files and folders of Python code in a package."""
    inside = (root / package).iterdir()
    return {path.stem for path in inside if path.suffix == ".py" or [*path.glob("*.py")]} - {
        "__init__"
    }


def named(package: str) -> set[str]:
    """Those that the layers of setup.cfg name."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    contract = {"dpsgd_torch": "rooms", "accountant": "accounting"}[package]
    return set(settings[f"importlinter:contract:{contract}"]["layers"].replace("|", " ").split())


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What import-linter says of a list of planted (file, text)."""
    folder = tmp_path_factory.mktemp("planted")
    for package in ("accountant", "dpsgd_torch"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "setup.cfg", folder)

    def ask(plants: list[tuple[str, str]]) -> list[str]:
        ended = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "planted_arrows.py"), str(folder)],
            input=json.dumps(plants), capture_output=True, text=True, check=True, cwd=folder,
            env={**os.environ, "COLUMNS": "400"},
        )  # fmt: skip
        return json.loads(ended.stdout)

    return ask


def file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def test_no_import_arrow_turns_round(reports):
    [report] = reports([("dpsgd_torch/version.py", "")])
    assert "8 kept, 0 broken" in report


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_every_room_has_its_place_in_the_contract(package):
    assert rooms(package) == named(package)


def test_every_room_has_an_arrow_planted():
    assert set(WRONG) == rooms("dpsgd_torch")


def test_a_room_that_no_contract_names_is_refused(reports):
    found = reports([("dpsgd_torch/annex.py", "import math\n"), ("accountant/annex.py", "")])
    assert ["7 kept, 1 broken" in report and "annex" in report for report in found] == [True] * 2


def test_a_wrong_arrow_in_any_room_is_caught_late_and_for_types_alone_too(reports):
    plants = [
        (file_of(file), shape.format(wrong))
        for (file, wrong), shape in zip(ARROWS, itertools.cycle(SHAPES), strict=False)
    ]
    passed = []
    for (file, wrong), report in zip(ARROWS, reports(plants), strict=True):
        arrow = f"{file.removesuffix('.__init__')} -> {wrong} "
        if "BROKEN" not in report or arrow not in report:
            passed.append(arrow)
    assert not passed


def test_a_right_arrow_is_let_pass(reports):
    right = {
        "dpsgd_torch.run": "dpsgd_torch.export.api",
        "dpsgd_torch.training.loop": "dpsgd_torch.samplers.poisson",
        "dpsgd_torch.noise.base": "dpsgd_torch.mechanisms.units",
        "dpsgd_torch.tasks.task": "dpsgd_torch.layers",
        "accountant.answers": "accountant.ledger",
    }
    plants = [(file_of(file), f"\nimport {line}\n") for file, line in right.items()]
    assert ["8 kept, 0 broken" in report for report in reports(plants)] == [True] * len(right)
