"""What noise and what the clip took: on made-up data alone, beside a run that is not touched."""

import contextlib
import json
import sqlite3
import warnings

import pytest
import torch

from dpsgd_torch.app import explain as told
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.explained import KINDS, Explained
from dpsgd_torch.app.flags import parse
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.loss_plot import loss_picture, loss_words
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.privacy.privacy import declared_sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.digits.kind import Digits
from dpsgd_torch.tasks.registry import TASKS, kind_of
from dpsgd_torch.train import main

FOUND = Explained(
    rows=600,
    test_rows=300,
    share=0.1,
    reached={"private": (0.90, 0.92), "no noise": (0.95, 0.95), "no noise, no clip": (0.96, 0.95)},
)


def plan_of(config: RunConfig) -> PrivacyPlan:
    privacy = config.privacy(10)
    sampling = declared_sampler(
        PoissonSampler,
        privacy,
        dataset_size=config.dataset_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        rows_per_unit=None,
    )
    return privacy.plan(sampling, ())


@pytest.fixture
def quick(monkeypatch):
    """Two seeds on a few rows."""
    monkeypatch.setattr(told, "SEEDS", (1, 2))
    monkeypatch.setattr(told, "MOST_ROWS", 300)
    monkeypatch.setattr(told, "TEST_ROWS", 200)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


class Silent:
    """Whoever follows, and says nothing."""

    def __init__(self):
        self.followed = []

    def follow(self, name, progress):
        self.followed.append((name, [(at.step, at.steps, at.epsilon) for at in progress]))


@pytest.mark.parametrize("preset", ["mnist-tutorial", "mnist-microbatch", "digits"])
def test_fewer_rows_keep_the_noise_of_the_mean_gradient_and_the_passes(preset):
    config = PRESETS[preset]().config
    plan = plan_of(config)
    small = told.shrunk(config, plan, 6000)
    noise = plan.step(0).noise_multiplier / config.batch_size
    assert small.noise_multiplier / small.batch_size == pytest.approx(noise)
    assert small.batch_size / small.dataset_size == pytest.approx(
        config.batch_size / config.dataset_size, rel=1e-3
    )
    assert (small.clip_norm, small.epochs, small.learning_rate, small.microbatch_size) == (
        config.clip_norm, config.epochs, config.learning_rate, config.microbatch_size,
    )  # fmt: skip
    assert small.dataset_size <= 6000
    assert told.changed(small, "private") == small
    assert told.changed(small, "no noise").noise_multiplier == 1e-6
    assert not told.changed(small, "no noise, no clip").dp


def test_no_private_row_is_read_and_progress_is_one_stretch_for_each_kind(
    tmp_path, quick, monkeypatch
):
    def never(*_):
        raise AssertionError("private data was asked for")

    monkeypatch.setattr(Digits, "load", never)
    config = PRESETS["digits"]().config.changed(epochs=2, explain_loss=True)
    folder, present = RunFolder(tmp_path / "run"), Silent()
    folder.create()
    found = told.explain(config, plan_of(config), folder, present)
    assert (found.rows, found.test_rows) == (303, 200)  # 27 a batch, of 128 from 1437
    assert all(len(found.reached[kind]) == 2 for kind in KINDS)
    assert [name for name, _ in present.followed] == [f"made-up data, {kind}" for kind in KINDS]
    for _, steps in present.followed:
        assert steps[-1][0] == steps[-1][1]
        assert {epsilon for _, _, epsilon in steps} == {None}
    before = len(present.followed)
    assert told.explain(config, plan_of(config), folder, present) == found
    assert len(present.followed) == before  # read, not run again


def test_the_run_and_its_ledger_are_as_they_are_without(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(told, "SEEDS", (1,))
    words = ["--preset", "digits", "--epochs", "1", "--seed", "4"]
    for name, more in (("plain", []), ("explained", ["--explain-loss"])):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    plain, explained = tmp_path / "plain", tmp_path / "explained"
    for name in ("model.safetensors", "metrics.jsonl", "privacy.json"):
        assert (plain / name).read_bytes() == (explained / name).read_bytes()
    assert charges(plain) == charges(explained)
    assert not (plain / "made-up.json").exists()
    found = Explained.from_json(json.loads((explained / "made-up.json").read_text()))
    page = (explained / "report.html").read_text()
    assert loss_picture(found).html in page
    assert "no private row was looked at" in page
    assert "on made-up data" not in (plain / "report.html").read_text()


def charges(run):
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        return ledger.execute("SELECT step, event FROM charge ORDER BY id").fetchall()


def test_what_was_lost_to_noise_and_to_the_clip_adds_up_to_the_whole():
    assert FOUND.noise == pytest.approx(0.04)
    assert FOUND.clip == pytest.approx(0.005)
    assert FOUND.noise + FOUND.clip == pytest.approx(0.955 - 0.91)
    assert FOUND.spread == pytest.approx(0.02)


def test_the_words_say_that_data_is_made_up_and_by_how_much_it_differs():
    words = loss_words(FOUND, 0.85)
    assert words.startswith("The same plan was run on 600 made-up rows")
    assert "noise takes 4.00 points; the clip takes 0.50 points, no more than chance" in words
    assert "its own test rows, which are 6.0 points harder" in words
    assert "0.1 of the run’s" in words
    assert "private 91.00 %, no noise 95.00 %, no noise, no clip 95.50 %" in loss_picture(FOUND).alt


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--preset", "moa"], "needs made-up data of known classes; made-up drugs"),
        (["--preset", "text"], "needs made-up data of known classes; no texts are made up"),
        (["--preset", "fashion-best"], "needs made-up data of known classes; made-up objects"),
        (["--preset", "digits", "--no-dp"], "leaves --explain-loss without effect"),
    ],
)
def test_a_task_without_made_up_data_is_refused_in_one_line(flags, line, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*flags, "--explain-loss", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", [name for name in TASKS if not TASKS[name].not_made_up])
def test_made_up_tasks_are_of_the_size_asked_and_of_the_tasks_form(name):
    knobs = kind_of(name).knobs()
    task = kind_of(name).made_up(knobs, 40, 20)
    assert (len(task.train[1]), len(task.test[1])) == (40, 20)
    outputs = task.make_model(torch.Generator())(task.test[0])
    assert outputs.shape == (20, len(task.labels))
    assert not (task.train[0][:20] == task.test[0]).flatten(1).all(1).any()
    assert len(task.train[1].unique()) > 1


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].not_made_up])
def test_tasks_that_say_they_make_nothing_up_make_nothing_up(name):
    with pytest.raises(ConfigError, match="override made_up"):
        kind_of(name).made_up(kind_of(name).knobs(), 4, 2)


def test_the_flag_stands_in_the_configuration():
    config = parse(["--preset", "digits", "--explain-loss"]).preset.config
    assert config.to_json()["explain_loss"] is True
