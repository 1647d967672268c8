"""A run that an earlier version left still opens: it exports, and resumes to the same weights."""

import contextlib
import json
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpsgd_torch.app.stored_config import read_config
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.train import main as train
from dpsgd_torch.training.fingerprint import environment

RUNS = Path(__file__).parent / "golden" / "runs"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("dpsgd_torch.app.run.write_report", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(RUNS, tmp_path / "runs"))


def epsilon(run):
    return json.loads((run / "privacy.json").read_text())["epsilon"]


def rows(run, query):
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        return ledger.execute(query).fetchall()


def ends_as(run, other):
    mine, others = (load_file(folder / "model.safetensors") for folder in (run, other))
    return mine.keys() == others.keys() and all(torch.equal(mine[k], others[k]) for k in mine)


def test_a_finished_run_of_an_earlier_version_exports_with_its_epsilon(old):
    assert export([str(old / "finished"), "--to", "c", "--out", str(old / "out")]) == 0
    header = (old / "out" / "model.h").read_text()
    assert "epsilon: at most 0.5820" in header
    assert "delta: 1e-05" in header
    assert "const int8_t" in (old / "out" / "model.c").read_text()


def test_a_finished_run_of_an_earlier_version_resumes_to_what_it_was(old):
    assert train(["--resume", str(old / "finished")]) == 0
    assert ends_as(old / "finished", RUNS / "finished")
    assert epsilon(old / "finished") == pytest.approx(epsilon(RUNS / "finished"), rel=1e-12)
    assert rows(old / "finished", "SELECT COUNT(*) FROM charge") == [(23,)]


def resumed(run):
    assert rows(run, "SELECT COUNT(*), MAX(step) FROM charge") == [(17, 16)]
    if train(["--resume", str(run)]):  # a processor of another make rounds its products otherwise:
        assert train(["--resume", str(run)]) == 0  # the repetition is refused, then drawn afresh
    assert export([str(run), "--to", "onnx"]) == 0
    return rows(run, "SELECT COUNT(*) FROM charge")[0][0]


def repeats_here(run):
    """Whether this machine repeats what the one that left the run has charged."""
    ((was,),) = rows(run, "SELECT environment FROM attempt")
    return was == environment(torch.device("cpu"))


def test_an_interrupted_run_of_an_earlier_version_goes_on_where_it_was(old):
    run = old / "interrupted"
    repeats = repeats_here(run)
    charged = resumed(run)
    if repeats and charged == 23:  # bit for bit: two steps repeated, paid once
        assert ends_as(run, RUNS / "finished")
        assert epsilon(run) == pytest.approx(epsilon(RUNS / "finished"), rel=1e-12)
    else:
        assert_drawn_afresh(run, charged)


def test_on_another_machine_it_draws_afresh_and_charges_again(old, monkeypatch):
    """The same folder, its ledger begun somewhere else."""
    run = old / "interrupted"
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE attempt SET environment = 'a board of 1987, float64 noise'")
        ledger.commit()
    assert_drawn_afresh(run, resumed(run))


def assert_drawn_afresh(run, charged):
    """Two steps, 15 and 16, had been charged since the checkpoint; they are charged again."""
    assert charged == 25
    assert epsilon(run) > epsilon(RUNS / "finished")
    assert not ends_as(run, RUNS / "finished")


def edit(path, **changes):
    """The JSON file with other values, and without those that are None."""
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in fields.items() if v != "gone"}))


def test_what_an_old_run_asked_is_what_it_asks_now(old):
    fields = json.loads((old / "finished" / "config.json").read_text())
    config = read_config(RunFolder(old / "finished"))
    now = config.to_json()
    flat = {**now, **now.pop("task")}
    assert now["version"] == 3
    assert {name: value for name, value in fields.items() if flat.get(name, value) != value} == {}
    assert {*fields} - {*flat} == {"hidden", "features", "loss"}  # knobs of other tasks


def test_a_setting_of_an_earlier_version_that_asked_for_nothing_is_let_pass(old):
    edit(old / "finished" / "config.json", dreams=False)
    assert read_config(RunFolder(old / "finished")).dataset == "digits"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dreams": 3}, "'dreams' = 3 is unknown"),
        ({"delta": "gone"}, "lacks 'delta'"),
        ({"dropout": "gone"}, "lacks 'dropout'"),
        ({"version": 4}, "version = 4 is unknown"),
        ({"version": 3}, "lacks 'task'"),
        ({"dropout": "much"}, "dropout = 'much' has another type"),
    ],
)
def test_what_really_changed_is_named(old, changes, why, capsys):
    edit(old / "interrupted" / "config.json", **changes)
    assert train(["--resume", str(old / "interrupted")]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("dropout", 0.5), ("clip_norm", 2.0)])
def test_an_old_run_goes_on_as_it_began(old, name, value, capsys):
    edit(old / "interrupted" / "config.json", **{name: value})
    assert train(["--resume", str(old / "interrupted")]) == 2
    assert f"{name} changed" in capsys.readouterr().err
