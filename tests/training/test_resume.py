"""A crash never loses a run, never under-reports ε, and costs nothing where it repeats exactly."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from many_processes import alone
from small_problem import make_trainer, small_data, small_model, weights

from accountant import LedgerError
from dpsgd_torch import GuaranteeBroken, Privacy, RunError
from dpsgd_torch.storage.beginning import is_begun_only
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training import session

DRIVER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from small_problem import make_trainer
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

torch.set_num_threads({threads})
trainer = make_trainer(run_dir={run!r})
place, number = {place!r}, {number}
calls = 0

def die_at(function):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

if place == "before the noise":
    PrivateOptimizer.add_noise = die_at(PrivateOptimizer.add_noise)
elif place == "before it is settled":
    trainer.open()
    trainer.ledger.settle = die_at(trainer.ledger.settle)
elif place == "after the step":
    for at in trainer.run():
        if at.step == number:
            os.kill(os.getpid(), signal.SIGKILL)
print("started", flush=True)
trainer.fit()
"""


def driver(run: Path, place: str, number: int) -> str:
    tests, threads = str(Path(__file__).parents[1]), torch.get_num_threads()
    return DRIVER.format(tests=tests, threads=threads, run=str(run), place=place, number=number)


def killed(run: Path, place: str, number: int) -> Path:
    """A run folder whose process was killed there, by SIGKILL."""
    script = driver(run, place, number)
    status, _, told = alone(script)
    assert status == -signal.SIGKILL, told
    return run


@pytest.fixture(scope="module")
def undisturbed():
    return make_trainer().fit()


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("before the noise", 22),
        ("before it is settled", 9),
        ("after the step", 17),
        ("before the noise", 3),  # before the first checkpoint
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, undisturbed, place, number):
    run = killed(tmp_path / "run", place, number)
    charged_at_death = charges(run)
    drawn = number - 1 if place == "before the noise" else number
    assert charged_at_death >= drawn
    resumed = make_trainer(run_dir=run, seed=None).resume()
    assert len(resumed.ledger) == charged_at_death
    resumed.fit()
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))
    assert resumed.ledger.events() == undisturbed.ledger.events()
    assert resumed.history.epochs == undisturbed.history.epochs


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(4))
def test_a_run_killed_at_any_moment_by_another_process_ends_the_same(
    tmp_path, undisturbed, attempt
):
    script = driver(tmp_path / "run", "", 0)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout
    with process, process.stdout:
        process.stdout.readline()
        time.sleep(random.uniform(0.0, 0.3))
        process.kill()
    resumed = make_trainer(run_dir=tmp_path / "run", seed=None)
    if is_begun_only(tmp_path / "run"):  # killed in its first moment, before any charge
        with pytest.raises(RunError, match="begin it again"):
            resumed.resume()
        resumed = make_trainer(run_dir=tmp_path / "run")
    else:
        resumed.resume()
    resumed.fit()
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))
    assert len(resumed.ledger) == 30


def charges(run: Path) -> int:
    """Read from a copy, as the next process would find it."""
    copy = run.parent / "seen"
    copy.mkdir(exist_ok=True)
    for file in run.glob("ledger.sqlite*"):
        shutil.copy(file, copy)
    connection = sqlite3.connect(copy / "ledger.sqlite")
    try:
        return int(connection.execute("SELECT COUNT(*) FROM charge").fetchone()[0])
    finally:
        connection.close()


def interrupted(run: Path, steps: int = 18, **changes):
    """A run folder left in the middle, as by an exception."""
    trainer = make_trainer(run_dir=run, **changes)
    progress = trainer.run()
    for at in progress:
        if at.step == steps:
            break
    progress.close()
    trainer.ledger.close()
    return trainer


def test_where_it_cannot_repeat_it_draws_fresh_noise_and_pays_again(
    tmp_path, undisturbed, monkeypatch
):
    interrupted(tmp_path / "run")
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    resumed = make_trainer(run_dir=tmp_path / "run").resume().fit()
    again = 18 - 14  # steps since the last checkpoint
    assert len(resumed.ledger) == 30 + again
    spent = resumed.privacy_spent()
    assert spent.steps == 34
    assert spent.epsilon > undisturbed.privacy_spent().epsilon
    assert not torch.equal(weights(resumed.model), weights(undisturbed.model))


def test_fresh_noise_is_never_the_old_noise_under_other_gradients(tmp_path, monkeypatch):
    interrupted(tmp_path / "run", steps=18)
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    first = make_trainer(run_dir=tmp_path / "run").resume()
    assert first.attempt == 1
    progress = first.run()
    for at in progress:
        if at.step == 16:
            break
    progress.close()
    first.ledger.close()
    second = make_trainer(run_dir=tmp_path / "run").resume()
    assert second.attempt == 1  # its own steps 15 and 16 are repeated, 17 and 18 drawn afresh
    second.fit()
    assert len(second.ledger) == 18 + 16  # 15 to 18 charged in both attempts, the rest once


def test_a_repetition_with_another_outcome_is_discarded_and_paid_afresh(tmp_path):
    interrupted(tmp_path / "run")
    connection = sqlite3.connect(tmp_path / "run" / "ledger.sqlite")
    with connection:
        connection.execute("UPDATE charge SET checksum = checksum + 1 WHERE step = 15")
    connection.close()
    resumed = make_trainer(run_dir=tmp_path / "run").resume()
    with pytest.raises(GuaranteeBroken, match="fresh noise"):
        resumed.fit()
    resumed.ledger.close()
    once_more = make_trainer(run_dir=tmp_path / "run").resume().fit()
    assert len(once_more.ledger) == 30 + 4


def test_the_budget_survives_a_crash(tmp_path):
    privacy = Privacy(epsilon=3.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    straight = make_trainer(privacy=privacy).fit()
    interrupted(tmp_path / "run", steps=4, privacy=privacy)
    resumed = make_trainer(run_dir=tmp_path / "run", privacy=privacy).resume().fit()
    assert resumed.stopped == straight.stopped
    assert torch.equal(weights(resumed.model), weights(straight.model))


def test_a_damaged_checkpoint_is_refused_and_the_good_one_before_it_named(tmp_path, undisturbed):
    interrupted(tmp_path / "run")
    checkpoints = tmp_path / "run" / "private" / "checkpoints"
    newest = sorted(checkpoints.glob("step-*"))[-1]
    content = bytearray((newest / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"step-00000014: damaged .* good one is step-00000010"):
        make_trainer(run_dir=tmp_path / "run").resume()
    shutil.rmtree(newest)
    resumed = make_trainer(run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))
    assert len(resumed.ledger) == 30


@pytest.mark.parametrize("damage", ["state.json", "tensors.safetensors"])
def test_a_truncated_checkpoint_is_refused(tmp_path, damage):
    interrupted(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "private" / "checkpoints").glob("step-*"))[-1]
    os.truncate(newest / damage, 10)
    with pytest.raises(RunError, match="damaged"):
        make_trainer(run_dir=tmp_path / "run").resume()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": small_data(seed=2)}, "data"),
        ({"epochs": 4}, "sampling"),
        ({"privacy": Privacy(noise_multiplier=0.5, delta=1e-3, clip_norm=0.5)}, "privacy"),
        ({"privacy": None}, "privacy"),
        ({"loss": torch.nn.MultiMarginLoss()}, "loss"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5)}, "optimizer"),
        ({"physical_batch_size": 6}, "physical batch size"),
        ({"model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))}, "model"),
    ],
)
def test_a_run_whose_contract_changed_is_not_resumed(tmp_path, changes, named):
    interrupted(tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=f"its {named} changed"):
        make_trainer(run_dir=tmp_path / "run", **changes).resume()
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert after == before


def test_other_initial_weights_do_not_matter_to_a_resumed_run(tmp_path, undisturbed):
    interrupted(tmp_path / "run", steps=3)
    resumed = make_trainer(run_dir=tmp_path / "run", model=small_model(seed=8)).resume().fit()
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))


def test_two_processes_cannot_train_one_run(tmp_path):
    first = make_trainer(run_dir=tmp_path / "run")
    first.open()
    with pytest.raises(LedgerError, match="another process"):
        make_trainer(run_dir=tmp_path / "run").resume()
    first.close()


@pytest.mark.parametrize("loss", [os.remove, lambda path: os.truncate(path, 0)])
def test_a_lost_ledger_does_not_count_as_unspent(tmp_path, loss):
    interrupted(tmp_path / "run")
    loss(tmp_path / "run" / "ledger.sqlite")
    with pytest.raises(LedgerError, match="missing or empty"):
        make_trainer(run_dir=tmp_path / "run").resume()


def test_an_old_copy_of_the_ledger_is_refused(tmp_path):
    interrupted(tmp_path / "run", steps=5)
    shutil.copy(tmp_path / "run" / "ledger.sqlite", tmp_path / "old")
    trainer = make_trainer(run_dir=tmp_path / "run").resume().fit()
    trainer.close()
    shutil.copy(tmp_path / "old", tmp_path / "run" / "ledger.sqlite")
    with pytest.raises(RunError, match="holds 5 charges, 30 were made"):
        make_trainer(run_dir=tmp_path / "run").resume()


def test_a_calibrated_noise_is_taken_from_the_run_not_calibrated_anew(tmp_path):
    privacy = Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5)
    interrupted(tmp_path / "run", privacy=privacy)
    folder = RunFolder(tmp_path / "run")
    data = folder.read_sealed("private/contract.json")
    data["noise_multiplier"]["value"] *= 1 + 1e-15  # another machine's last digit
    folder.write_sealed("private/contract.json", data)
    resumed = make_trainer(run_dir=tmp_path / "run", privacy=privacy).resume()
    assert resumed.plan.noise_multiplier.value == data["noise_multiplier"]["value"]


def test_nothing_is_pickled(tmp_path):
    interrupted(tmp_path / "run")
    suffixes = {p.suffix for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".sqlite", ".sqlite-wal"}


def test_the_key_of_the_streams_is_readable_by_its_owner_only(tmp_path):
    interrupted(tmp_path / "run")
    assert (tmp_path / "run" / "private").stat().st_mode & 0o077 == 0


def paid_again(run: Path) -> Path:
    """A run that another machine went on with, so that some of its steps were paid for twice."""
    interrupted(run, steps=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "environment", lambda device, gradients: "another machine")
        make_trainer(run_dir=run).resume().fit().close()
    return run


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE event SET json = replace(json, '1.0', '9.0')",  # as much noise as nobody added
        "UPDATE event SET json = replace(json, '0.1', '0.01')",
        "UPDATE charge SET event = 7 WHERE step = 3",
        "DELETE FROM charge WHERE step < 6",
    ],
)
def test_a_ledger_that_was_changed_states_no_epsilon_though_steps_were_paid_twice(tmp_path, change):
    run = paid_again(tmp_path / "run")
    honest = make_trainer(run_dir=run).resume()
    assert honest.privacy_spent().steps_charged_again > 0
    honest.close()
    connection = sqlite3.connect(run / "ledger.sqlite")
    with connection:
        connection.execute(change)
    connection.close()
    with pytest.raises((GuaranteeBroken, LedgerError, RunError), match="ledger"):
        make_trainer(run_dir=run).resume().fit().privacy_spent()


@pytest.mark.parametrize("name", ["event", "charge"])
def test_a_ledger_whose_tables_and_indices_disagree_is_refused(tmp_path, name):
    """A flipped bit changes one of them: without a look at both, ε would be another."""
    run = tmp_path / "run"
    interrupted(run)
    content = bytearray((run / "ledger.sqlite").read_bytes())
    wanted = {"event": b'"noise_multiplier": 1', "charge": b"training"}[name]
    at = content.index(wanted) + len(wanted) - 1
    content[at] ^= 8
    (run / "ledger.sqlite").write_bytes(content)
    with pytest.raises(LedgerError, match="ledger"):
        make_trainer(run_dir=run).resume()
