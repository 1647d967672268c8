"""Truncated Poisson samples and random allocation: drawn by their law, charged, resumed, told."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from small_problem import make_trainer, small_data, weights

from accountant import (
    Gaussian,
    InvalidValue,
    NoCost,
    RandomAllocation,
    TruncatedPoissonSampled,
    UnsupportedEvent,
    exact,
)
from dpsgd_torch import Privacy, RunError
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.statement import statement
from dpsgd_torch.audit.canaries import Canaries
from dpsgd_torch.audit.draws import batch_checks
from dpsgd_torch.audit.replayed import replay
from dpsgd_torch.noise.grid import GRID
from dpsgd_torch.samplers.allocation import AllocationSampler, allocated
from dpsgd_torch.samplers.truncated import TruncatedPoissonSampler, kept
from dpsgd_torch.schedules import Step
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training import session
from dpsgd_torch.training.streams import Streams

PRIVACY = Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5)
EPOCH = RandomAllocation(steps=10, event=Gaussian(noise_multiplier=2.0))


def trained(sampler, **changes):
    return make_trainer(**{"sampler": sampler, "privacy": PRIVACY, "epochs": 2, **changes})


def drawn(sampler, step, *, records, seed=5, attempt=0):
    stream = partial(Streams(seed).numpy, attempt=attempt, step=step)
    return sampler.draw(stream, step, records, None).rows


def checked(sampler, steps, seed=5):
    return batch_checks(sampler, Streams(seed), [(0, step) for step in range(steps)])


@pytest.mark.parametrize("selected", [1, 3])
def test_every_record_is_in_exactly_k_batches_of_a_round_and_every_step_is_as_likely(selected):
    sampler = AllocationSampler(dataset_size=2000, batch_size=200, steps=60, selected=selected)
    held = np.zeros((2000, sampler.steps), int)
    for step in range(sampler.steps):
        held[drawn(sampler, step, records=2000), step] = 1
    rounds = held.reshape(2000, -1, sampler.round)
    assert (rounds.sum(axis=2) == selected).all()
    per_step = held.sum(axis=0)
    expected = 2000 * sampler.rate
    assert abs(per_step - expected).max() < 5 * np.sqrt(expected)
    assert ((per_step - expected) ** 2).sum() / expected < 2 * sampler.steps
    first, second = rounds[:, 0, 0], rounds[:, 1, 0]  # rounds are independent
    assert abs((first & second).mean() - sampler.rate**2) < 5 * sampler.rate / np.sqrt(2000)
    even, odd = held[::2], held[1::2]  # and so are records
    together = (even & odd).mean()
    assert abs(together - sampler.rate**2) < 5 * sampler.rate / np.sqrt(even.size)


def test_the_steps_of_a_record_are_any_k_with_the_same_probability():
    found = np.sort(allocated(np.random.default_rng(0), 30_000, 5, 2), axis=1)
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert counts.size == 10
    assert ((counts - 3000) ** 2).sum() / 3000 < 30  # chi-square of 9 degrees


def test_audits_hold_a_round_to_its_law_and_catch_batches_drawn_afresh():
    sampler = AllocationSampler(dataset_size=400, batch_size=40, steps=40)
    assert all(check.p_value > 1e-6 for check in checked(sampler, 40))

    class Afresh(AllocationSampler):
        def draw(self, stream, step, records, units):
            return self.in_slots(stream, poisson(stream("sampling"), records, self.rate), units)

    def poisson(rng, records, rate):
        return np.flatnonzero(rng.random(records) < rate)

    planted = Afresh(dataset_size=400, batch_size=40, steps=40)
    assert min(check.p_value for check in checked(planted, 40)) < 1e-6


def test_truncated_batches_are_never_larger_and_poisson_below():
    sampler = TruncatedPoissonSampler(dataset_size=400, batch_size=20, steps=30, most_drawn=60)
    sizes = [drawn(sampler, step, records=400).size for step in range(30)]
    assert max(sizes) <= 60 == sampler.most()
    assert all(check.p_value > 1e-6 for check in checked(sampler, 30))
    members = np.arange(50)
    counts = np.zeros(50)
    for seed in range(400):
        some = kept(np.random.default_rng(seed), members, 10)
        assert some.size == 10 == np.unique(some).size
        counts[some] += 1
    assert abs(counts - 80).max() < 5 * np.sqrt(80)


def test_a_round_is_paid_at_its_first_step_and_every_step_has_its_row():
    trainer = trained("balls").fit()
    assert trainer.ledger.events() == [(EPOCH, 1), (NoCost(), 9)] * 2
    spent = trainer.privacy_spent()
    price = exact().compose(EPOCH, 2).epsilon(1e-3)
    assert (spent.epsilon_lower, spent.epsilon) == (price.lower, price.upper)
    assert (spent.steps, spent.also, spent.sampling_rate) == (20, [], 0.1)
    assert spent.epsilon < spent.epsilon_rdp
    assert spent.to_json()["epsilon_opacus_rdp"] is None


def test_a_budget_ends_the_run_before_the_round_that_would_pass_it():
    once = exact().compose(EPOCH).epsilon(1e-3).upper
    privacy = Privacy(noise_multiplier=2.0, epsilon=once * 1.01, delta=1e-3, clip_norm=0.5)
    trainer = trained("balls", privacy=privacy)
    trainer.fit()
    assert trainer.done == 10
    assert "step 10 would reach" in trainer.stopped
    assert trainer.privacy_spent().epsilon <= once * 1.01


def test_a_resumed_round_is_the_same_and_paid_once(tmp_path):
    whole = trained("balls", run_dir=tmp_path / "whole", checkpoint_every=2).fit()
    cut = trained("balls", run_dir=tmp_path / "cut", checkpoint_every=2)
    for _ in itertools.islice(cut.run(), 13):
        pass
    cut.close()
    again = trained("balls", run_dir=tmp_path / "cut", checkpoint_every=2).resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.events() == whole.ledger.events()


def test_a_round_that_cannot_be_repeated_is_drawn_and_paid_anew(tmp_path, monkeypatch):
    cut = trained("balls", run_dir=tmp_path / "cut", checkpoint_every=2)
    for _ in itertools.islice(cut.run(), 14):
        pass
    cut.close()
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    again = trained("balls", run_dir=tmp_path / "cut", checkpoint_every=2).resume().fit()
    counts = sum(n for event, n in again.ledger.events() if event == EPOCH)
    assert counts == 3
    assert again.privacy_spent().epsilon == exact().compose(EPOCH, 3).epsilon(1e-3).upper
    sampler = again.sampling
    first = drawn(sampler, 14, records=120, attempt=0)
    assert not np.array_equal(first, drawn(sampler, 14, records=120, attempt=1))
    again.close()
    report = replay(RunFolder(tmp_path / "cut"))
    assert not report.faults, report.faults


def test_truncated_samples_are_charged_and_replayed(tmp_path):
    trainer = trained("truncated:40", run_dir=tmp_path / "run").fit()
    event = TruncatedPoissonSampled(
        sampling_rate=0.1, dataset_size=120, most=40, event=Gaussian(noise_multiplier=2.0)
    )
    assert trainer.ledger.events() == [(event, 20)]
    spent = trainer.privacy_spent()
    assert spent.agreement < 1e-9
    assert spent.epsilon_lower <= spent.epsilon <= spent.epsilon_opacus_rdp
    trainer.close()
    assert not replay(RunFolder(tmp_path / "run")).faults


@pytest.mark.parametrize("asked", ["balls", "allocation:2", "truncated:30"])
def test_units_and_microbatches_come_with_the_interface(asked):
    units = np.arange(120) // 3
    of_units = Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5, unit="drug")
    whole = trained(asked, units=units, rows_per_unit=2, batch_size=8, privacy=of_units)
    assert whole.fit().privacy_spent().unit == "drug"
    halves = Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5, microbatch_size=2)
    event = trained(asked, privacy=halves, batch_size=8).plan.event(0)
    assert event.event == Gaussian(noise_multiplier=1.0)


@pytest.mark.parametrize(
    ("asked", "changes", "words"),
    [
        ("truncated:13", {}, "take 39 or more"),
        ("truncated", {}, "must be truncated:NUMBER"),
        ("balls:3", {}, "balls takes no number"),
        ("allocation:3", {}, "allocation = 3: takes 30 steps"),
        ("truncated:60", {"data": small_data(140), "privacy": "declared"}, "records = 140: are"),
        ("balls", {"privacy": "scheduled"}, "must stay the same throughout the 10 steps"),
    ],
)
def test_what_has_no_analysis_is_refused_before_anything_is_charged(asked, changes, words):
    privacies = {
        "declared": Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5, dataset_size=120),
        "scheduled": Privacy(
            noise_multiplier=Step(first=2.0, factor=1.5, every=5), delta=1e-3, clip_norm=0.5
        ),
    }
    if "privacy" in changes:
        changes = {**changes, "privacy": privacies[changes["privacy"]]}
    with pytest.raises(InvalidValue, match=words):
        trained(asked, **changes)


def test_secure_noise_and_canaries_say_what_they_take(tmp_path):
    sizes = {"dataset_size": 120, "batch_size": 12, "steps": 20}
    with pytest.raises(UnsupportedEvent, match="sampler = allocation"):
        GRID.charges(0, 1.0, AllocationSampler(**sizes))
    told = GRID.charges(0, 1.0, TruncatedPoissonSampler(**sizes, most_drawn=60))
    assert told.event.noise_multiplier < 1
    assert 0 < exact().compose(told, 20).epsilon(1e-3).upper < 10
    with pytest.raises(RunError, match="not for allocation"):
        Canaries(count=20).insert(trained("balls"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("balls", "in exactly 1 of the batches of each round of 10 steps"),
        ("truncated:40", "of more than 40 so many were kept"),
    ],
)
def test_the_statement_tells_the_law_and_who_was_asked(asked, words):
    trainer = trained(asked).fit()
    told = statement(
        PRESETS["digits"]().config,
        trainer.privacy_spent(),
        plan=trainer.plan,
        claim="",
        stopped="",
        has_baseline=False,
    ).replace("\n", " ")
    assert words in " ".join(told.split())
    assert ("Opacus has no price for this sampler" in told) == (asked == "balls")
