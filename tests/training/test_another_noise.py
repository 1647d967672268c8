"""Noise of one's own: added, charged as a whole, kept in checkpoints, told; no other file knows."""

import itertools
import json
import math
from dataclasses import dataclass

import pytest
import torch
from full_batch import FullBatch
from small_problem import make_trainer, small_data, weights

from accountant import Gaussian, InvalidValue, NoCost, exact
from dpsgd_torch import Privacy, RunError
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.promises import by_rows, if_altered
from dpsgd_torch.app.report.statement import statement
from dpsgd_torch.noise.base import Noise
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.training import session


@dataclass(frozen=True)
class PaidAsAWhole(Noise):
    """The usual noise, with one charge for the √T-fold release that T full batches are."""

    name = "paid as a whole"
    not_covered = "what is whispered."
    cheat: float = 1.0

    def check(self, sampler):
        if not isinstance(sampler, FullBatch):
            raise InvalidValue("sampler: must be of the full batch for this noise")

    def charges(self, step, noise_multiplier, sampler, first=0):
        if step > first:
            return NoCost()
        return Gaussian(noise_multiplier=noise_multiplier / math.sqrt(sampler.steps))

    def add(self, sums, params, release):
        INDEPENDENT.add(sums, params, release)
        release.state["steps"] += 1
        release.state["last"].copy_(params[-1].grad)

    def state(self, params):
        return {"steps": torch.zeros(1), "last": torch.zeros_like(params[-1])}

    def describe(self, first, last):
        return f"noise of {first.noise_multiplier:g} was added and paid as one"


def made(noise, **changes):
    privacy = Privacy(noise_multiplier=20.0, delta=1e-3, clip_norm=0.5, noise=noise)
    settings = {"sampler": FullBatch, "batch_size": 120, "epochs": 6, "checkpoint_every": 2}
    return make_trainer(**{"privacy": privacy, **settings, **changes})


def test_one_charge_pays_for_all_and_every_step_has_its_row():
    trainer = made(PaidAsAWhole()).fit()
    whole = Gaussian(noise_multiplier=20 / math.sqrt(6))
    assert trainer.ledger.events() == [(whole, 1), (NoCost(), 5)] == trainer.plan.events()
    spent, singly = trainer.privacy_spent(), made(INDEPENDENT).fit().privacy_spent()
    assert spent.steps == singly.steps == 6
    assert spent.also == []
    assert spent.epsilon == pytest.approx(singly.epsilon, rel=1e-12)
    assert spent.epsilon == exact().compose(whole).epsilon(1e-3).upper
    assert spent.epsilon == trainer.history.epochs[0].epsilon  # all of it, from the first step on


def test_a_budget_is_measured_on_the_whole():
    privacy = Privacy(epsilon=0.5, delta=1e-3, clip_norm=0.5, noise=PaidAsAWhole())
    assert 0.4999 < made(None, privacy=privacy).fit().privacy_spent().epsilon <= 0.5
    privacy = Privacy(
        epsilon=0.1, noise_multiplier=20.0, delta=1e-3, clip_norm=0.5, noise=PaidAsAWhole()
    )
    trainer = made(None, privacy=privacy)
    with pytest.warns(UserWarning, match="nothing was trained: step 0 would reach"):
        trainer.fit()
    assert trainer.done == 0
    assert "would reach" in trainer.stopped


def test_what_it_carries_is_kept_in_checkpoints_and_resumed_bit_for_bit(tmp_path):
    whole = made(PaidAsAWhole(), run_dir=tmp_path / "whole").fit()
    cut = made(PaidAsAWhole(), run_dir=tmp_path / "cut")
    for _ in itertools.islice(cut.run(), 3):
        pass
    cut.close()
    again = made(PaidAsAWhole(), run_dir=tmp_path / "cut").resume()
    assert again.done == 3
    assert again.noise_state["steps"].item() == 3
    assert torch.equal(again.noise_state["last"], cut.noise_state["last"])
    again.fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.noise_state["steps"].item() == 6
    assert again.ledger.events() == whole.ledger.events()


def test_an_attempt_that_draws_anew_begins_anew_and_pays_the_whole_again(tmp_path, monkeypatch):
    cut = made(PaidAsAWhole(), run_dir=tmp_path / "cut")
    for _ in itertools.islice(cut.run(), 3):
        pass
    cut.close()
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    again = made(PaidAsAWhole(), run_dir=tmp_path / "cut").resume()
    assert again.noise_state["steps"].item() == 0
    again.fit()
    whole = Gaussian(noise_multiplier=20 / math.sqrt(6))
    assert again.ledger.events() == [(whole, 1), (NoCost(), 2)] * 2
    spent = again.privacy_spent()
    assert spent.epsilon == exact().compose(whole, 2).epsilon(1e-3).upper
    assert spent.steps == 6


def test_its_kind_is_part_of_what_a_resumed_run_must_share(tmp_path):
    made(PaidAsAWhole(), run_dir=tmp_path / "run").fit().close()
    for other in (INDEPENDENT, PaidAsAWhole(cheat=2.0)):
        with pytest.raises(RunError, match="its privacy changed"):
            made(other, run_dir=tmp_path / "run").resume()


def test_a_sampler_without_analysis_is_refused_before_anything_is_charged():
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, noise=PaidAsAWhole())
    with pytest.raises(InvalidValue, match="must be of the full batch"):
        make_trainer(privacy=privacy)


def test_privacy_json_and_the_statement_tell_it(tmp_path):
    trainer = made(PaidAsAWhole()).fit()
    folder = trainer.save(tmp_path / "run")
    assert json.loads((folder / "privacy.json").read_text())["noise"] == "paid as a whole"
    words = statement(
        PRESETS["digits"]().config,
        trainer.privacy_spent(),
        plan=trainer.plan,
        claim="",
        stopped="",
        has_baseline=False,
    )
    assert "noise of 20 was added and paid as one" in " ".join(words.split())
    assert "what is whispered" in words
    assert "Gaussian noise" not in words
    assert len(small_data()[0]) == 120


def test_rows_of_a_unit_are_promised_for_it_too():
    events = made(PaidAsAWhole()).plan.events()
    whole = events[0][0].noise_multiplier
    assert by_rows(events, 1e-3) == by_rows([(Gaussian(noise_multiplier=whole), 1)], 1e-3)
    assert if_altered(events, 1e-3) == if_altered([(Gaussian(noise_multiplier=whole), 1)], 1e-3)
