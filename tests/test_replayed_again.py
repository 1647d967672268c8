"""Replay of every attempt of a run, and its last steps taken again from the rows."""

import itertools

import pytest
from small_problem import make_trainer, small_model

from dpsgd_torch import Privacy, RunError
from dpsgd_torch.audit import replay, retrace
from dpsgd_torch.noise import independent
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training import session
from dpsgd_torch.training.streams import Streams

PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.05)


def run_of(folder, **changes):
    settings = {"privacy": PRIVACY, "batch_size": 24, "epochs": 4, "seed": 3}
    return make_trainer(run_dir=folder, model=small_model(), **{**settings, **changes})


def interrupted(folder, monkeypatch):
    """A run of 20 steps whose steps 10, 11 and 12 were drawn anew on another machine."""
    first = run_of(folder)
    for _ in itertools.islice(first.run(), 13):
        pass
    first.close()
    monkeypatch.setattr(session, "environment", lambda *_: "another machine")
    run_of(folder).resume().fit().close()


def test_every_attempt_is_drawn_again_and_an_honest_one_is_not_accused(tmp_path, monkeypatch):
    interrupted(tmp_path / "run", monkeypatch)
    report = replay(RunFolder(tmp_path / "run"))
    assert report.faults == []
    assert "23 charges for 20 steps" in report.checks[0].found


def test_noise_that_a_second_attempt_shares_with_the_first_is_found(tmp_path, monkeypatch):
    made = Streams.numpy

    def again(self, name, *, attempt=0, step=0):
        return made(self, name, attempt=0 if name == "noise" else attempt, step=step)

    monkeypatch.setattr(Streams, "numpy", again)
    interrupted(tmp_path / "run", monkeypatch)
    faults = replay(RunFolder(tmp_path / "run")).faults
    assert any("no noise is used twice (3 of an earlier step's" in fault for fault in faults)


def test_the_last_steps_come_out_bit_for_bit_and_no_record_moves_a_sum_too_far(tmp_path):
    run_of(tmp_path / "run").fit().close()
    before = (tmp_path / "run" / "ledger.sqlite").read_bytes()
    same, change = retrace(run_of, tmp_path / "run")
    assert same.passed
    assert same.found == "steps 15 to 19, equal"
    assert change.passed
    assert 0.9 < float(change.found.split()[0]) <= 1.0001
    assert (tmp_path / "run" / "ledger.sqlite").read_bytes() == before


def test_weights_with_less_noise_than_the_streams_give_are_found(tmp_path, monkeypatch):
    fill = independent.fill_normal

    def less(rng, out):
        fill(rng, out)
        out *= 2 / 3

    with monkeypatch.context() as planted:
        planted.setattr(independent, "fill_normal", less)
        planted.setattr(independent, "refuse_unplanned", lambda *_: None)
        run_of(tmp_path / "run").fit().close()
    assert replay(RunFolder(tmp_path / "run")).faults == []  # the draws are honest, now
    same, *_ = retrace(run_of, tmp_path / "run")
    assert not same.passed
    assert same.found.endswith("other weights come out")


def test_what_cannot_be_retraced_is_refused(tmp_path):
    with pytest.raises(RunError, match="fewer than two checkpoints"):
        retrace(run_of, tmp_path)
