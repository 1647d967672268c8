"""Killed before anything was charged, a run may be begun again; a lost ledger is not that."""

import contextlib
import os
import shutil
import signal
import sqlite3
import warnings
from pathlib import Path

import pytest
import torch
from many_processes import alone
from small_problem import make_trainer, weights

from accountant import LedgerError
from dpsgd_torch import RunError
from dpsgd_torch.search import main as search
from dpsgd_torch.storage.beginning import MARK
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.train import main
from dpsgd_torch.training.charges import Charges

WORDS = ["--preset", "digits", "--epochs", "1", "--batch-size", "479", "--seed", "3"]
KINDS = {
    "private": ["--noise-multiplier", "3"],
    "of labels": ["--no-dp", "--label-epsilon", "3"],
    "without privacy": ["--no-dp"],
}
ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """In place of SIGKILL: nothing in the way may catch it."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("dpsgd_torch.app.run.write_report", lambda *_: None)


@contextlib.contextmanager
def killed_at(monkeypatch, number):
    """Die as the disk is about to be told for the ``number``-th time to keep something."""
    calls, honest = 0, os.fsync

    def fsync(handle):
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        honest(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def charges(folder):
    if not (folder / "ledger.sqlite").exists():
        return 0
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        tables = ledger.execute("SELECT name FROM sqlite_master").fetchall()
        if ("charge",) not in tables:
            return 0
        return ledger.execute("SELECT COUNT(*) FROM charge").fetchone()[0]


@pytest.fixture(scope="module")
def undisturbed():
    return weights(make_trainer(epochs=1).fit().model)


@pytest.mark.parametrize("moment", range(1, 26, 2))
def test_a_trainer_killed_at_any_first_moment_is_begun_again_or_resumed(
    tmp_path, monkeypatch, undisturbed, moment
):
    run = tmp_path / "run"
    first = make_trainer(epochs=1, run_dir=run)
    with killed_at(monkeypatch, moment), contextlib.suppress(Killed):
        first.open()
    first.close()  # the process is gone, and with it its locks
    charged = charges(run)
    again = make_trainer(epochs=1, run_dir=run)
    if RunFolder(run).is_free:
        assert charged == 0
        if any(run.iterdir()):
            with pytest.raises(RunError, match=r"before anything was charged|cannot be read"):
                make_trainer(epochs=1, run_dir=run).resume()
    else:
        again.resume()
    again.fit()
    again.close()
    assert torch.equal(weights(again.model), undisturbed)
    assert charges(run) == 10
    assert not (run / MARK).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_at_any_first_moment_is_begun_again_or_resumed(
    tmp_path, monkeypatch, capsys, kind
):
    words = [*WORDS, *KINDS[kind], "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    outcomes = []
    for moment in range(1, 45, 4):
        run = tmp_path / f"run-{moment}"
        with killed_at(monkeypatch, moment), contextlib.suppress(Killed):
            main([*words, str(run)])
        capsys.readouterr()
        status = main(["--resume", str(run)])
        if status == 2:
            (line,) = capsys.readouterr().err.splitlines()
            assert "before anything was charged" in line or "cannot be read" in line
            assert charges(run) == 0
            status = main([*words, str(run)])
        assert status == 0, moment
        outcomes.append(charges(run))
        if kind != "of labels":  # whose answers come from the operating system
            assert (run / "model.safetensors").read_bytes() == expected, moment
    once = charges(tmp_path / "whole")
    assert set(outcomes) <= {once, once + (kind == "of labels")}  # lost answers are paid again


@pytest.mark.parametrize("place", ["Ledger.__init__", "Ledger._open"])
def test_a_process_that_is_killed_as_its_ledger_is_made_leaves_a_folder_to_begin_in(
    tmp_path, place
):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from accountant import Ledger
from small_problem import make_trainer
{place} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
make_trainer(epochs=1, run_dir={str(tmp_path / "run")!r}).fit()
"""
    status, _, told = alone(script)
    assert status == -signal.SIGKILL, told
    with pytest.raises(RunError, match="stopped before anything was charged"):
        make_trainer(epochs=1, run_dir=tmp_path / "run").resume()
    begun = make_trainer(epochs=1, run_dir=tmp_path / "run").fit()
    assert len(begun.ledger) == 10


def begun(run, steps=4):
    trainer = make_trainer(run_dir=run, checkpoint_every=2)
    for at in trainer.run():
        if at.step == steps:
            break
    trainer.close()
    return run


def test_a_ledger_that_is_lost_after_charges_is_no_beginning(tmp_path):
    run = begun(tmp_path / "run")
    (run / "ledger.sqlite").unlink()
    assert not RunFolder(run).is_free
    with pytest.raises(LedgerError, match="missing or empty"):
        make_trainer(run_dir=run, checkpoint_every=2).resume()
    with pytest.raises(RunError, match="not empty"):
        make_trainer(run_dir=run, checkpoint_every=2).fit()


@pytest.mark.parametrize("also_lost", [[], ["private/contract.json"], ["private/streams.json"]])
def test_not_even_a_mark_that_is_put_back_makes_a_lost_ledger_a_beginning(tmp_path, also_lost):
    run = begun(tmp_path / "run")
    for name in ["ledger.sqlite", *also_lost]:
        (run / name).unlink()
    (run / MARK).touch()
    assert not RunFolder(run).is_free  # checkpoints of steps that were taken are there
    with pytest.raises(RunError, match="not empty"):
        make_trainer(run_dir=run).fit()


def test_a_mark_beside_a_ledger_with_charges_is_no_beginning(tmp_path):
    run = begun(tmp_path / "run")
    shutil.rmtree(run / "private" / "checkpoints")
    (run / MARK).touch()
    assert not RunFolder(run).is_free
    (run / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(200)))
    assert not RunFolder(run).is_free  # one that cannot be read may hold some


def test_a_mark_beside_anything_of_the_users_is_no_beginning(tmp_path):
    run = tmp_path / "run"
    (run / "private").mkdir(parents=True)
    (run / MARK).touch()
    assert RunFolder(run).is_free
    (run / "thesis.txt").write_text("years of work")
    assert not RunFolder(run).is_free
    (run / "thesis.txt").unlink()
    (run / "config.json").symlink_to(tmp_path / "elsewhere.json")
    assert not RunFolder(run).is_free


def test_two_cannot_begin_in_one_folder(tmp_path):
    run, seen = tmp_path / "run", []
    ask = f"""
from pathlib import Path
from dpsgd_torch.storage.run_folder import RunFolder
print(RunFolder(Path({str(run)!r})).is_free)
"""

    def another_process_may():
        status, told, _ = alone(ask)
        assert status == 0
        return told.strip() == "True"

    with contextlib.suppress(Killed), RunFolder(run).beginning():
        seen += [RunFolder(run).is_free, another_process_may()]
        with pytest.raises(RunError, match="not empty"):
            RunFolder(run).create()
        raise Killed
    seen += [RunFolder(run).is_free, another_process_may()]
    assert seen == [False, False, True, True]


def test_a_contract_that_is_lost_after_steps_does_not_start_the_run_anew(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*WORDS, *KINDS["private"], "--out", str(run)]) == 0
    (run / "private" / "contract.json").unlink()
    capsys.readouterr()
    assert main(["--resume", str(run)]) == 2
    assert "contract.json: is gone, and steps were taken" in capsys.readouterr().err


def test_a_trial_whose_ledger_is_lost_is_not_run_again_for_nothing(tmp_path, monkeypatch, capsys):
    """By absence alone it was taken for one that had not begun, and its folder deleted."""
    folder, settle = tmp_path / "search", Charges.settle

    def interrupt(self, step, *rest):
        settle(self, step, *rest)
        raise KeyboardInterrupt

    words = ["--preset", "digits", "--epsilon", "3", "--set", "epochs=1", "--trials", "2",
             "--stopping", "fixed", "--seed", "1"]  # fmt: skip
    monkeypatch.setattr(Charges, "settle", interrupt)
    assert search([*words, "--out", str(folder)]) == 130
    monkeypatch.setattr(Charges, "settle", settle)
    trial = folder / "private" / "trials" / "0001"
    (trial / "ledger.sqlite").unlink()
    capsys.readouterr()
    assert search(["--resume", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ledger.sqlite: is missing or empty" in line
    assert (trial / "config.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"bound": null}', "[" * 100_000])
def test_a_damaged_search_is_refused_by_the_files_name(tmp_path, capsys, content):
    folder = tmp_path / "search"
    (folder / "private").mkdir(parents=True)
    (folder / "private" / "search.json").write_text(content)
    capsys.readouterr()
    assert search(["--resume", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "search.json" in line
