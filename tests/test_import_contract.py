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
    "advise": [("advise", "dpsgd_torch.train")],
    "advice": [
        ("advice.settings", "dpsgd_torch.app.presets"),
        ("advice.answer", "dpsgd_torch.advise"),
        ("advice.model", "dpsgd_torch.app.config"),
    ],
    "__main__": [("__main__", "dpsgd_torch.train"), ("train", "dpsgd_torch.__main__")],
    "app": [
        ("app.assembly", "dpsgd_torch.app.run"),
        ("app.assembly", "dpsgd_torch.app.progress"),
        ("app.classified", "dpsgd_torch.app.report.page"),
        ("app.config", "dpsgd_torch.app.presets"),
        ("app.explain", "dpsgd_torch.app.run"),
        ("app.explained", "dpsgd_torch.app.explain"),
        ("app.export.job", "dpsgd_torch.app.run"),
        ("app.export.board", "dpsgd_torch.app.report.page"),
        ("app.flags", "dpsgd_torch.app.preprocessing"),
        ("app.folds", "dpsgd_torch.app.assembly"),
        ("app.follow", "dpsgd_torch.app.run"),
        ("app.outcome", "dpsgd_torch.app.progress"),
        ("app.predict", "dpsgd_torch.app.outcome"),
        ("app.preprocessing", "dpsgd_torch.app.report.page"),
        ("app.presets", "dpsgd_torch.app.flags"),
        ("app.progress", "dpsgd_torch.app.run"),
        ("app.randomized_labels", "dpsgd_torch.app.assembly"),
        ("app.report.page", "dpsgd_torch.app.run"),
        ("app.report.plots", "dpsgd_torch.app.assembly"),
        ("app.run", "dpsgd_torch.app.search.story"),
        ("app.run", "dpsgd_torch.train"),
        ("app.search.story", "dpsgd_torch.search"),
        ("app.settings", "dpsgd_torch.app.config"),
        ("app.promise_settings", "dpsgd_torch.app.settings"),
        ("app.stored_config", "dpsgd_torch.app.export.source"),
    ],
    "audit": [
        ("audit.canaries", "dpsgd_torch.app.run"),
        ("audit.report", "dpsgd_torch.app.report.page"),
        ("audit.replayed", "dpsgd_torch.export.api"),
        ("audit.draws", "dpsgd_torch.app.config"),
        ("audit.command", "dpsgd_torch.app.presets"),
        ("audit.attacks.attack", "dpsgd_torch.app.config"),
    ],
    "quantization": [("quantization", "dpsgd_torch.training.trainer")],
    "clipping": [
        ("clipping.base", "dpsgd_torch.noise.base"),
        ("clipping.flat", "dpsgd_torch.gradients.vectors"),
        ("clipping.base", "dpsgd_torch.training.steps"),
        ("clipping.flat", "dpsgd_torch.app.config"),
    ],
    "data": [
        ("data.tensors", "dpsgd_torch.storage.sealed"),
        ("data.tensors", "dpsgd_torch.mechanisms.gaussian"),
        ("data.tensors", "dpsgd_torch.tasks.task"),
        ("data.units", "dpsgd_torch.samplers.base"),
        ("data.base", "dpsgd_torch.schedules"),
        ("data.checked", "dpsgd_torch.gradients.blame"),
        ("data.trees", "dpsgd_torch.gradients.losses"),
        ("data.fetching", "dpsgd_torch.training.streams"),
        ("data.loaders", "torchvision"),
    ],
    "errors": [("errors", "dpsgd_torch.layers"), ("errors", "dpsgd_torch.schedules")],
    "export": [
        ("export.api", "dpsgd_torch.app.config"),
        ("export.api", "dpsgd_torch.app.export.source"),
        ("export.saved_model", "dpsgd_torch.tasks.task"),
        ("export.saved_model", "dpsgd_torch.app.presets"),
        ("export.deliver", "dpsgd_torch.tasks.registry"),
        ("export.graph", "dpsgd_torch.app.config"),
        ("export.frontend.to_c", "dpsgd_torch.tasks.task"),
    ],
    "features": [
        ("features.recipe", "dpsgd_torch.tasks.image_features"),
        ("features.made_up.digits", "dpsgd_torch.data.arrays"),
        ("features.made_up.digits", "sklearn"),
        ("features.frozen", "dpsgd_torch.training.loop"),
        ("features.sound.tables", "dpsgd_torch.tasks.task"),
    ],
    "optim": [
        ("optim.base", "dpsgd_torch.noise.base"),
        ("optim.adam_bc", "dpsgd_torch.training.state"),
        ("optim.asked", "dpsgd_torch.schedules"),
    ],
    "gradients": [
        ("gradients.capture", "dpsgd_torch.training.loop"),
        ("gradients.compiled.program", "dpsgd_torch.training.state"),
        ("gradients.compiled.stage", "dpsgd_torch.storage.run_folder"),
        ("gradients.grad_sample", "dpsgd_torch.storage.run_folder"),
        ("gradients.graph.engine", "dpsgd_torch.gradients.rules.registry"),
        ("gradients.graph.layouts", "dpsgd_torch.noise.base"),
        ("gradients.graph.pull_back", "dpsgd_torch.gradients.graph.arrivals"),
        ("gradients.graph.rows", "dpsgd_torch.gradients.graph.walk"),
        ("gradients.graph.walk", "dpsgd_torch.gradients.compiled.stage"),
        ("gradients.graph.rules.base", "dpsgd_torch.gradients.graph.layouts"),
        ("gradients.graph.rules.matmul", "dpsgd_torch.gradients.graph.walk"),
        ("gradients.graph.walk", "dpsgd_torch.gradients.graph.engine"),
        ("gradients.losses", "pandas"),
        ("gradients.methods", "dpsgd_torch.privacy.plan"),
        ("gradients.parts.tracing", "dpsgd_torch.gradients.compiled.held"),
        ("gradients.rehearsal.passes", "dpsgd_torch.gradients.compiled.program"),
        ("gradients.parts.base", "dpsgd_torch.gradients.vectors"),
        ("gradients.parts.clipped", "dpsgd_torch.gradients.rehearsal.oracle"),
        ("gradients.parts.outer", "dpsgd_torch.gradients.graph.rows"),
        ("gradients.parts.tokens", "dpsgd_torch.gradients.graph.rules.base"),
        ("gradients.parts.written", "dpsgd_torch.storage.run_folder"),
        ("gradients.rehearsal.gradients", "dpsgd_torch.training.charges"),
        ("gradients.rules.base", "dpsgd_torch.gradients.graph.rules.base"),
        ("gradients.rules.registry", "dpsgd_torch.mechanisms.gaussian"),
        ("gradients.vectors", "dpsgd_torch.samplers.base"),
    ],
    "integrations": [
        ("integrations.logger", "dpsgd_torch.app.config"),
        ("integrations.tensorboard", "dpsgd_torch.export.api"),
        ("integrations.mlflow", "dpsgd_torch.train"),
        ("integrations.accelerate", "dpsgd_torch.app.run"),
        ("integrations.lightning", "dpsgd_torch.search"),
        ("integrations.hugging_face", "dpsgd_torch.app.presets"),
        ("integrations.opacus_style", "dpsgd_torch.export.api"),
    ],
    "layers": [("layers", "dpsgd_torch.gradients.rules.layer_norm")],
    "losses": [("losses", "dpsgd_torch.gradients.losses")],
    "mechanisms": [
        ("mechanisms.gaussian", "dpsgd_torch.privacy.plan"),
        ("mechanisms.statistics", "dpsgd_torch.tasks.task"),
        ("mechanisms.laplace", "dpsgd_torch.training.streams"),
        ("mechanisms.exponential", "dpsgd_torch.noise.base"),
        ("mechanisms.units", "dpsgd_torch.samplers.base"),
        ("mechanisms.library", "dpsgd_torch.app.report.page"),
    ],
    "noise": [
        ("noise.base", "dpsgd_torch.training.steps"),
        ("noise.independent", "dpsgd_torch.privacy.plan"),
        ("noise.base", "dpsgd_torch.storage.sealed"),
        ("noise.base", "dpsgd_torch.tasks.task"),
        ("noise.base", "dpsgd_torch.app.report.statement"),
        ("noise.base", "dpsgd_torch.app.config"),
    ],
    "privacy": [
        ("privacy.privacy", "dpsgd_torch.app.config"),
        ("privacy.plan", "dpsgd_torch.training.state"),
        ("privacy.guarantee", "dpsgd_torch.training.charges"),
        ("privacy.guarantee", "dpsgd_torch.app.report.page"),
        ("privacy.cross_check", "dpsgd_torch.gradients.vectors"),
    ],
    "renamed": [("renamed", "dpsgd_torch.schedules")],
    "samplers": [
        ("samplers.base", "dpsgd_torch.noise.base"),
        ("samplers.rows", "dpsgd_torch.mechanisms.units"),
        ("samplers.poisson", "dpsgd_torch.training.streams"),
        ("samplers.rows", "dpsgd_torch.tasks.task"),
        ("samplers.base", "dpsgd_torch.app.report.statement"),
        ("samplers.base", "dpsgd_torch.app.config"),
    ],
    "precision": [("precision", "dpsgd_torch.gradients.parts")],
    "schedules": [("schedules", "dpsgd_torch.privacy.plan")],
    "plan": [("plan", "dpsgd_torch.train"), ("app.cluster", "dpsgd_torch.app.settings")],
    "search": [("search", "dpsgd_torch.train")],
    "secure": [
        ("secure.generator", "dpsgd_torch.training.streams"),
        ("secure.discrete", "dpsgd_torch.mechanisms.gaussian"),
        ("secure.enclosed", "dpsgd_torch.noise.base"),
    ],
    "shell": [("shell", "dpsgd_torch.app.run")],
    "storage": [
        ("storage.run_folder", "dpsgd_torch.export.saved_model"),
        ("storage.run_folder", "dpsgd_torch.training.checkpoint"),
        ("storage.sealed", "dpsgd_torch.privacy.plan"),
    ],
    "tasks": [
        ("tasks.task", "dpsgd_torch.training.streams"),
        ("tasks.mnist.task", "dpsgd_torch.app.report.plots"),
        ("tasks.drug_responses.task", "dpsgd_torch.mechanisms.statistics"),
        ("tasks.gestures.task", "dpsgd_torch.samplers.rows"),
        ("tasks.digits.task", "dpsgd_torch.noise.base"),
        ("tasks.registry", "dpsgd_torch.app.presets"),
        ("tasks.registry", "dpsgd_torch.app.config"),
    ],
    "train": [("train", "dpsgd_torch.search")],
    "training": [
        ("training.trainer", "dpsgd_torch.app.config"),
        ("training.world", "dpsgd_torch.app.follow"),
        ("training.trainer", "dpsgd_torch.app.presets"),
        ("training.loop", "dpsgd_torch.app.flags"),
        ("training.feed", "dpsgd_torch.app.assembly"),
        ("training.history", "dpsgd_torch.app.report.plots"),
        ("training.steps", "dpsgd_torch.app.run"),
        ("training.own_loop", "dpsgd_torch.app.progress"),
        ("training.rehearse", "dpsgd_torch.app.stored_config"),
        ("training.validation", "pandas"),
    ],
    "torchvision_import": [("torchvision_import", "dpsgd_torch.tasks.mnist.torchvision_import")],
    "version": [("version", "dpsgd_torch.app.config")],
}
ACCOUNTANT = [
    ("ledger.ledger", "torch"),
    ("cli.peers", "opacus"),
    ("events", "dpsgd_torch"),
    ("auditing.one_run", "accountant.ledger.ledger"),
    ("auditing.operating", "accountant.tradeoff"),
    ("rdp.curves", "dpsgd_torch.samplers.base"),
    ("rdp.curves", "accountant.pld.accountant"),
    ("events", "accountant.rdp.accountant"),
    ("pld.accountant", "accountant.ledger.ledger"),
    ("dominating_pairs.pairs", "accountant.rdp.curves"),
    ("ledger.ledger", "accountant.cli.commands"),
    ("errors", "accountant.events"),
    ("lattice", "accountant.rdp.curves"),
    ("mechanisms", "accountant.events"),
    ("truncation", "accountant.rdp.accountant"),
    ("rounding", "accountant.lattice"),
    ("tradeoff", "accountant.risk.measures"),
    ("risk.measures", "accountant.ledger.ledger"),
    ("factorization.pricing", "accountant.dpsgd"),
    ("factorization.factor", "dpsgd_torch.noise.base"),
]
ARROWS = [
    *[(f"dpsgd_torch.{file}", wrong) for arrows in WRONG.values() for file, wrong in arrows],
    *[(f"accountant.{file}", wrong) for file, wrong in ACCOUNTANT],
    ("dpsgd_torch.__init__", "dpsgd_torch.app.config"),
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
    assert "13 kept, 0 broken" in report


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_every_room_has_its_place_in_the_contract(package):
    assert rooms(package) == named(package)


def test_every_room_has_an_arrow_planted():
    assert set(WRONG) == rooms("dpsgd_torch")


def test_a_room_that_no_contract_names_is_refused(reports):
    found = reports([("dpsgd_torch/annex.py", "import math\n"), ("accountant/annex.py", "")])
    assert ["12 kept, 1 broken" in report and "annex" in report for report in found] == [True] * 2


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
        "dpsgd_torch.app.run": "dpsgd_torch.export.api",
        "dpsgd_torch.training.loop": "dpsgd_torch.samplers.poisson",
        "dpsgd_torch.noise.base": "dpsgd_torch.mechanisms.units",
        "dpsgd_torch.tasks.task": "dpsgd_torch.layers",
        "accountant.cli.commands": "accountant.ledger.ledger",
    }
    plants = [(file_of(file), f"\nimport {line}\n") for file, line in right.items()]
    assert ["13 kept, 0 broken" in report for report in reports(plants)] == [True] * len(right)
