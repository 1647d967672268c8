"""Audits of whole runs: honest ones pass, and each planted fault is found by name."""

import itertools
import json

import numpy as np
import pytest
import torch
from full_batch import FullBatch
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import Privacy, Private, RunError
from dpsgd_torch.audit import Canaries, audit_run, largest_change, replay
from dpsgd_torch.audit.__main__ import main
from dpsgd_torch.audit.diracs import Diracs, values_at
from dpsgd_torch.audit.guessed import FROM_OUTSIDE, guessed
from dpsgd_torch.gradients.vectors import length
from dpsgd_torch.noise import independent
from dpsgd_torch.samplers import poisson
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.streams import Streams

PRIVACY = Privacy(epsilon=8.0, delta=1e-3, clip_norm=0.5)


def run_of(**changes):
    return make_trainer(**{"privacy": PRIVACY, "batch_size": 24, "epochs": 5, **changes})


def audited(**changes):
    return audit_run(run_of(**changes), 200)


def replayed(tmp_path):
    run_of(run_dir=tmp_path / "run").fit().close()
    return replay(RunFolder(tmp_path / "run"))


def fails(report, claim):
    return any(claim in fault for fault in report.faults)


def test_honest_runs_are_not_accused(tmp_path):
    for seed in range(5):
        report = audited(seed=seed)
        assert report.faults == []
        assert 0 < report.best < report.epsilon <= 8
        assert 0 < report.bounds["binomial"] < report.epsilon
        assert 4 < report.bounds["mechanism as measured"] < report.epsilon
    assert replayed(tmp_path).faults == []


def test_bounds_that_hold_for_a_gaussian_trade_off_alone_are_not_told_of_sampled_batches():
    scores, coins = np.arange(100.0), np.arange(100) > 49
    asked = {"epsilon": 8.0, "delta": 1e-3, "confidence": 0.95}
    assert "Gaussian f-DP" in guessed(scores, coins, **asked).bounds
    assert "Gaussian f-DP" not in guessed(scores, coins, **asked, sampled=True).bounds
    assert "Gaussian f-DP" not in audited().bounds


def test_who_sees_noisy_sums_alone_measures_the_mechanism_and_goes_on_after_a_resume(tmp_path):
    def made():
        return run_of(run_dir=tmp_path / "run", seed=3)

    whole = run_of(seed=3)
    canaries = Canaries(200).insert(whole)
    whole.fit()
    outside = canaries.outside(whole.privacy_spent()).bounds[FROM_OUTSIDE]
    assert 0 < outside < canaries.report(whole).bounds["mechanism as measured"] < 8

    kept = Canaries(200)
    kept.insert(run_of(seed=3))
    kept.load_state_dict(canaries.state_dict())
    assert kept.outside(whole.privacy_spent()).bounds[FROM_OUTSIDE] == outside
    older = canaries.state_dict()
    del older["seen"]  # kept by a version that did not measure
    again = Canaries(200)
    again.insert(run_of(seed=3))
    again.load_state_dict(older)
    assert FROM_OUTSIDE not in again.outside(whole.privacy_spent()).bounds


def test_canaries_are_in_the_released_run_and_half_of_them_by_their_coins():
    plain, with_canaries = run_of().fit(), run_of()
    canaries = Canaries(200).insert(with_canaries)
    with_canaries.fit()
    assert with_canaries.ledger.events() == plain.ledger.events()
    moved = (weights(plain.model) - weights(with_canaries.model))[torch.from_numpy(canaries.places)]
    coins = torch.from_numpy(canaries.coins)
    assert moved[coins].mean() > 0.02 > abs(moved[~coins].mean())  # down the gradient
    assert 60 < canaries.coins.sum() < 140
    assert len(set(canaries.places)) == 200
    for scores in canaries.state_dict()["scores"].numpy():  # the insider's, the outsider's
        assert scores[canaries.coins].mean() > scores[~canaries.coins].mean() + 1


def test_privacy_json_says_what_was_inserted_and_into_which_run(tmp_path):
    trainer = run_of()
    audit_run(trainer, 100)
    told = json.loads((trainer.save(tmp_path / "run") / "privacy.json").read_text())["audit"]
    assert told.startswith("100 canaries were made for an audit")
    assert "into this very run, the released one" in told
    plain = run_of().fit().save(tmp_path / "plain") / "privacy.json"
    assert "audit" not in json.loads(plain.read_text())


def test_a_run_without_canaries_is_what_it_was():
    assert torch.equal(weights(run_of().fit().model), weights(run_of().fit().model))
    assert run_of().state.inserted is None


def test_scores_survive_a_run_that_is_interrupted_and_resumed(tmp_path):
    whole = run_of(run_dir=tmp_path / "whole")
    first = audit_run(whole, 100)
    cut = run_of(run_dir=tmp_path / "cut")
    Canaries(100).insert(cut)
    for _ in itertools.islice(cut.run(), 11):
        pass
    cut.close()
    again = run_of(run_dir=tmp_path / "cut")
    canaries = Canaries(100).insert(again)
    again.resume().fit()
    assert canaries.report(again) == first
    assert torch.equal(weights(again.model), weights(whole.model))
    with pytest.raises(RunError, match="canaries: the run keeps its state"):
        run_of(run_dir=tmp_path / "cut").resume()


def test_a_loop_of_ones_own_is_audited_too():
    model, loss = small_model(), nn.CrossEntropyLoss(reduction="none")
    loop = Private(
        model, torch.optim.SGD(model.parameters(), lr=0.2), small_data(),
        privacy=PRIVACY, batch_size=24, epochs=5, seed=3,
    )  # fmt: skip
    canaries = Canaries(200).insert(loop)
    for batch in loop:
        loop.backward(loss(model(batch.inputs), batch.targets))
        loop.step()
    report = canaries.report(loop)
    assert report.faults == []
    assert 0 < report.best < report.epsilon


def test_twice_the_clip_is_found(monkeypatch):
    begin = PrivateOptimizer.begin

    def doubled(self, plan, rng):
        begin(self, plan, rng)
        self.clip_norm *= 2

    monkeypatch.setattr(PrivateOptimizer, "begin", doubled)
    monkeypatch.setattr(independent, "refuse_unplanned", lambda *_: None)
    trainer = run_of(model=nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), privacy=Privacy(
        epsilon=8.0, delta=1e-3, clip_norm=0.05))  # fmt: skip
    report = audit_run(trainer, 100)
    assert fails(report, "moves the sum by the clip norm")
    assert report.bounds["mechanism as measured"] > report.epsilon
    check = largest_change(trainer)
    assert not check.passed
    assert 1.9 < float(check.found.split()[0]) < 2.01


def test_too_little_noise_is_found(monkeypatch, tmp_path):
    fill = independent.fill_normal

    def less(rng, out):
        fill(rng, out)
        out *= 2 / 3

    monkeypatch.setattr(independent, "fill_normal", less)
    monkeypatch.setattr(independent, "refuse_unplanned", lambda *_: None)
    assert fails(audited(), "noise has the deviation that is charged")
    assert fails(replayed(tmp_path), "noise has the deviation that is charged")


def test_one_record_in_every_batch_is_found(monkeypatch, tmp_path):
    sample = poisson.poisson_sample
    monkeypatch.setattr(poisson, "poisson_sample", lambda *a: np.union1d(sample(*a), [0]))
    assert fails(audited(), "every record joins at the same rate")
    assert fails(replayed(tmp_path), "every record joins at the same rate")


def test_batches_of_one_size_that_are_charged_as_poisson_samples_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(
        poisson, "poisson_sample",
        lambda rng, n, rate: np.sort(rng.permutation(n)[: round(n * rate)]),
    )  # fmt: skip
    assert fails(replayed(tmp_path), "as large as Poisson samples (24 to 24")


def test_the_same_noise_in_every_step_is_found(monkeypatch, tmp_path):
    made = Streams.numpy

    def stuck(self, name, *, attempt=0, step=0):
        return made(self, name, attempt=attempt, step=0 if name == "noise" else step)

    monkeypatch.setattr(Streams, "numpy", stuck)
    assert fails(audited(), "noise is drawn anew (correlation at most 0.")
    report = replayed(tmp_path)
    assert fails(report, "noise is drawn anew")
    assert fails(report, "no noise is used twice (24 of an earlier step's")


def test_noise_that_comes_back_later_is_found(monkeypatch, tmp_path):
    made = Streams.numpy

    def periodic(self, name, *, attempt=0, step=0):
        return made(self, name, attempt=attempt, step=step % 20 if name == "noise" else step)

    monkeypatch.setattr(Streams, "numpy", periodic)
    assert fails(replayed(tmp_path), "no noise is used twice (5 of an earlier step's")


def test_noise_that_is_dropped_on_empty_batches_is_found(monkeypatch):
    add = independent.IndependentGaussian.add

    def lazy(self, sums, params, release):
        empty = not any(s.any() for s in sums)
        add(self, sums, params, release)
        for p in params if empty else ():
            p.grad *= 0.01  # that the step moves nothing at all is found without any audit

    monkeypatch.setattr(independent.IndependentGaussian, "add", lazy)
    small = {"batch_size": 1, "epochs": 0.5, "privacy": Privacy(
        noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)}  # fmt: skip
    report = audit_run(run_of(**small), 20)
    assert fails(report, "noise has the deviation that is charged, in every step")
    monkeypatch.undo()
    assert audit_run(run_of(**small), 20).faults == []


def test_steps_that_were_not_charged_are_found(tmp_path):
    import sqlite3

    run_of(run_dir=tmp_path / "run").fit().close()
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as ledger:
        ledger.execute("DELETE FROM charge WHERE step = 3")
        ledger.execute("DELETE FROM meta WHERE key = 'sealed' OR key LIKE 'event %'")  # an old one
    report = replay(RunFolder(tmp_path / "run"))
    assert fails(report, "every step is charged as what was planned (24 charges for 25 steps, 1")


def test_one_record_moves_the_sum_by_the_clip_norm_at_most():
    check = largest_change(run_of(privacy=Privacy(
        noise_multiplier=1.0, delta=1e-3, clip_norm=0.05)).fit(), 5)  # fmt: skip
    assert check.passed
    assert 0.99 < float(check.found.split()[0]) <= 1.0001


def test_the_command_replays_a_run_and_keeps_its_findings_private(tmp_path, capsys):
    run_of(run_dir=tmp_path / "run").fit().close()
    assert main([str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("local, not covered by ε")
    assert "nothing contradicts the guarantee" in said
    assert "not checked: the sums" in said
    kept = json.loads((tmp_path / "run" / "private" / "audit.json").read_text())
    assert kept["faults"] == []
    assert not (tmp_path / "run" / "audit.json").exists()


def test_the_command_says_of_a_fault_by_its_exit_status(tmp_path, monkeypatch, capsys):
    run_of(run_dir=tmp_path / "run").fit().close()
    sample = poisson.poisson_sample
    monkeypatch.setattr(poisson, "poisson_sample", lambda *a: np.union1d(sample(*a), [0]))
    assert main([str(tmp_path / "run")]) == 1
    assert "FAILS: every record joins" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "run = nowhere: there is no such folder"),
        ([], "the following arguments are required: run"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_runs_that_have_no_white_box_audit_are_refused_before_anything_is_charged():
    with pytest.raises(RunError, match="is not private"):
        Canaries(20).insert(run_of(privacy=None))
    begun = run_of()
    begun.open()
    with pytest.raises(RunError, match="has begun"):
        Canaries(20).insert(begun)
    coarse = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, microbatch_size=2)
    with pytest.raises(RunError, match="clipped by itself"):
        Canaries(20).insert(run_of(privacy=coarse))
    with pytest.raises(ValueError, match="canaries = 5000: must be ≤ 235"):
        Canaries(5000).insert(run_of())


def test_a_full_batch_is_audited_as_a_gaussian_mechanism():
    privacy = Privacy(noise_multiplier=4.0, delta=1e-3, clip_norm=0.5)
    report = audited(privacy=privacy, sampler=FullBatch, batch_size=120, epochs=10)
    assert report.faults == []
    assert 0 < report.best < report.epsilon


def test_a_canarys_vector_is_what_it_says():
    params = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]
    vectors = Diracs(params, np.array([1, 5]), 10.0)
    sums, lost = vectors.totals(torch.tensor([0.1, 0.2], dtype=torch.float64), 0.0)
    assert torch.cat([s.flatten() for s in sums]).tolist() == [0, 1, 0, 0, 0, 2, 0]
    assert lost == 0
    assert vectors.norms.tolist() == [10, 10]
    assert length(vectors.vector(1)) == vectors.norm(1) == 10
    assert vectors.vector(1)[1].tolist() == [0, 10, 0]
    assert vectors.norms_told(0) == [10, 0]
    assert values_at(params, sums, np.array([5, 0, 1])).tolist() == [2, 0, 1]
    assert vectors.nbytes() > 0
