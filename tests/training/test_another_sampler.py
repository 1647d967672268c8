"""A sampler of one's own: drawn, priced, told and resumed, and no other file knows of it."""

import json

import numpy as np
import pytest
import torch
from full_batch import FullBatch
from small_problem import make_trainer, small_data

from accountant import Gaussian, Relation, UnsupportedEvent, exact
from dpsgd_torch import GuaranteeBroken, Privacy, PrivacyPlan, RunError
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.statement import statement
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Constant


class Exchanged(FullBatch):
    relation = Relation.REPLACE_ONE


def full_batch(kind=FullBatch, **changes):
    privacy = Privacy(noise_multiplier=20.0, delta=1e-3, clip_norm=0.5)
    return make_trainer(
        **{"sampler": kind, "batch_size": 120, "epochs": 5, "privacy": privacy, **changes}
    )


def test_what_it_draws_is_what_it_charges():
    trainer = full_batch()
    trainer.fit()
    assert [row["examples_seen"] for row in trainer.history.private] == [120] * 5
    assert trainer.ledger.events() == [(Gaussian(noise_multiplier=20.0), 5)]
    spent = trainer.privacy_spent()
    assert (spent.sampler, spent.sampling_rate, spent.steps, spent.also) == ("full batch", 1, 5, [])
    price = exact().compose(Gaussian(noise_multiplier=20.0), 5).epsilon(1e-3)
    assert (spent.epsilon_lower, spent.epsilon) == (price.lower, price.upper)


def test_its_noise_is_calibrated_like_any_others():
    privacy = Privacy(epsilon=1.5, delta=1e-3, clip_norm=0.5)
    assert 1.499 < full_batch(privacy=privacy).fit().privacy_spent().epsilon <= 1.5


def test_units_and_microbatches_come_with_the_interface():
    units = np.arange(120) // 3
    privacy = Privacy(noise_multiplier=9.0, delta=1e-3, clip_norm=0.5, unit="drug")
    trainer = full_batch(units=units, rows_per_unit=2, batch_size=40, privacy=privacy).fit()
    assert trainer.ledger.events() == [(Gaussian(noise_multiplier=9.0), 5)]
    privacy = Privacy(noise_multiplier=9.0, delta=1e-3, clip_norm=0.5, microbatch_size=4)
    assert full_batch(privacy=privacy).plan.event(0) == Gaussian(noise_multiplier=4.5)


def test_a_batch_of_microbatches_is_a_batch_of_weighted_slots():
    sampler = FullBatch(dataset_size=12, batch_size=12, microbatch_size=3, steps=1)
    batch = sampler.draw(lambda name: np.random.default_rng(0), 0, 12, None)
    assert batch.rows.tolist() == list(range(12))
    assert set(batch.slots) <= set(range(4))
    assert np.allclose(batch.weights, 1 / 3)


def test_its_law_is_part_of_what_a_resumed_run_must_share(tmp_path):
    full_batch(run_dir=tmp_path / "run").fit().close()
    with pytest.raises(RunError, match="its sampling changed"):
        full_batch(run_dir=tmp_path / "run", sampler=PoissonSampler).resume()
    again = full_batch(run_dir=tmp_path / "run").resume()
    assert again.done == again.sampling.steps


def test_privacy_json_and_the_statement_tell_it_in_its_own_words(tmp_path):
    trainer = full_batch().fit()
    folder = trainer.save(tmp_path / "run")
    assert json.loads((folder / "privacy.json").read_text())["sampler"] == "full batch"
    spent = trainer.privacy_spent()
    words = _words(trainer.plan, spent)
    assert "in each, every one of the 120 records was in the batch, its gradient" in words
    assert "oisson" not in words.split("Proof")[0]
    assert "adding or removing one record" in words


def _words(plan, spent):
    config = PRESETS["digits"]().config
    return " ".join(
        statement(config, spent, plan=plan, claim="", stopped="", has_baseline=False).split()
    )


def test_its_relation_is_the_ledgers_too():
    trainer = full_batch(Exchanged)
    trainer.open()
    assert trainer.ledger.relation is Relation.REPLACE_ONE
    replaced = Gaussian(noise_multiplier=10.0, relation=Relation.REPLACE_ONE)
    assert trainer.plan.event(0) == replaced  # one vector exchanged: twice the clip
    assert "replacing one record" in _words(trainer.plan, trainer.fit().privacy_spent())


def test_what_else_the_budget_pays_must_be_stated_for_its_relation():
    also = ((Gaussian(noise_multiplier=5.0), 1),)
    with pytest.raises(UnsupportedEvent, match="cannot pay both"):
        PrivacyPlan(
            sampling=Exchanged(dataset_size=10, batch_size=10, steps=1),
            clip_norm=Constant(1.0),
            noise_multiplier=Constant(1.0),
            delta=1e-3,
            also=also,
        )


def test_a_sampler_that_prices_another_relation_than_it_names_is_refused():
    class Twofaced(FullBatch):
        def event(self, noise_multiplier):
            return Gaussian(noise_multiplier=noise_multiplier, relation=Relation.REPLACE_ONE)

    with pytest.raises(ValueError, match="relation = replace_one: must be the sampler's own"):
        Twofaced(dataset_size=10, batch_size=10, steps=1)


def test_it_trains_without_privacy_as_well():
    trainer = full_batch(privacy=None, epochs=2)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.fit()
    assert not any(map(torch.equal, before, trainer.model.parameters()))
    assert len(small_data()[0]) == trainer.sampling.batch_size


def test_a_sampler_that_draws_far_more_than_it_declares_ends_the_run():
    trainer = full_batch(batch_size=8)
    with pytest.raises(GuaranteeBroken, match=r"batch of 120 rows: .* batch_size = 8 draws"):
        trainer.fit()
    assert trainer.done == 0
