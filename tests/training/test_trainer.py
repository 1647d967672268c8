"""The trainer as its user meets it."""

import copy
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from accountant import EpsilonBounds, PldAccountant
from accountant.calibration import cost
from dpsgd_torch import (
    GuaranteeBroken,
    Privacy,
    RunError,
    Trainer,
)
from dpsgd_torch.privacy.cross_check import opacus_rdp
from dpsgd_torch.schedules import Linear
from dpsgd_torch.training.sampling import poisson_sample


def test_what_ran_is_what_was_charged():
    trainer = make_trainer().fit()
    assert trainer.ledger.events() == trainer.plan.events()
    assert len(trainer.ledger) == trainer.sampling.steps == 30


def test_a_linear_decay_reaches_loop_and_ledger_alike():
    privacy = Privacy(
        delta=1e-3, noise_multiplier=Linear(2.0, 1.0, 30), clip_norm=Linear(1.0, 0.2, 30)
    )
    trainer = make_trainer(privacy=privacy)
    seen = []
    for at in trainer.run():
        optimizer = trainer.step.optimizer
        seen.append((at.step - 1, optimizer.noise_multiplier, optimizer.clip_norm))
    for step, noise, clip in seen:
        assert noise == pytest.approx(2.0 - step / 29)
        assert clip == pytest.approx(1.0 - 0.8 * step / 29)
    assert trainer.ledger.events() == trainer.plan.events()
    assert len(trainer.ledger.events()) == 30
    spent = trainer.privacy_spent()
    constant = make_trainer(privacy=Privacy(delta=1e-3, noise_multiplier=2.0, clip_norm=1.0))
    assert spent.epsilon > constant.fit().privacy_spent().epsilon
    assert spent.agreement < 1e-6


def test_a_calibrated_run_costs_its_budget_and_no_more():
    trainer = make_trainer(privacy=Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5)).fit()
    assert 2.0 * (1 - 1e-6) < trainer.privacy_spent().epsilon <= 2.0
    assert trainer.done == trainer.sampling.steps
    assert not trainer.stopped


def test_a_calibrated_schedule_too():
    privacy = Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5)
    plan = make_trainer(privacy=privacy).plan
    shape = Linear(1.5, 1.0, 30)
    scheduled = type(plan)(
        sampling=plan.sampling,
        clip_norm=plan.clip_norm,
        noise_multiplier=shape,
        delta=1e-3,
    ).calibrated(2.0)
    assert 2.0 * (1 - 1e-6) < cost(scheduled.events(), 1e-3) <= 2.0
    first, last = (scheduled.step(t).noise_multiplier for t in (0, 29))
    assert first / last == pytest.approx(1.5)


def test_a_budget_with_noise_given_is_a_hard_stop():
    privacy = Privacy(epsilon=2.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    trainer = make_trainer(privacy=privacy).fit()
    assert "would reach" in trainer.stopped
    assert 0 < trainer.done < trainer.sampling.steps
    spent = trainer.privacy_spent()
    assert spent.epsilon <= 2.0
    one_more = [*trainer.ledger.accountant.events, (trainer.plan.event(trainer.done), 1)]
    assert cost(one_more, 1e-3) > 2.0
    assert trainer.history.epochs[-1].step == trainer.done


def test_one_seed_one_result_and_another_another():
    one, same, other = (make_trainer(seed=s).fit() for s in (1, 1, 2))
    assert torch.equal(weights(one.model), weights(same.model))
    assert not torch.equal(weights(one.model), weights(other.model))


def test_a_run_leaves_no_trace_on_global_randomness_or_on_the_model():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trainer = make_trainer().fit()
    assert torch.equal(torch.rand(2), expected)
    assert not hasattr(next(trainer.model.parameters()), "grad_sample")
    copy.deepcopy(trainer.model)(small_data()[0])


def test_training_lowers_the_loss_where_noise_is_small():
    inputs, targets = small_data(300)
    inputs += targets[:, None, None, None]
    trainer = make_trainer(
        data=(inputs, targets),
        test_tensors=(inputs, targets),
        privacy=Privacy(noise_multiplier=0.3, delta=1e-3, clip_norm=1.0),
        batch_size=60,
        epochs=20,
        physical_batch_size=100,
    ).fit()
    losses = [record.test["loss"] for record in trainer.history.epochs]
    assert losses[-1] < 0.8 * losses[0]


def test_save_leaves_what_a_reviewer_needs(tmp_path):
    data = small_data()
    trainer = make_trainer(test_tensors=data).fit()
    folder = trainer.save(tmp_path / "mine")
    spent = json.loads((folder / "privacy.json").read_text())
    assert spent["epsilon"] == trainer.privacy_spent().epsilon
    loaded = small_model(seed=9)
    loaded.load_state_dict(load_file(folder / "model.safetensors"))
    assert torch.equal(weights(loaded), weights(trainer.model))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"epoch", "step", "test_loss", "epsilon"}] * 3
    private = (folder / "private" / "metrics.jsonl").read_text()
    assert "train_loss" in private
    with pytest.warns(UserWarning, match="taken: saved to"):
        again = make_trainer().fit().save(tmp_path / "mine")
    assert again == tmp_path / "mine-2"


def test_without_privacy_nothing_is_charged_and_nothing_promised(tmp_path):
    trainer = make_trainer(privacy=None).fit()
    with pytest.raises(RunError, match="nothing was charged"):
        trainer.privacy_spent()
    folder = trainer.save(tmp_path / "plain")
    assert json.loads((folder / "privacy.json").read_text())["epsilon"] is None


def test_the_plain_twin_meets_the_same_batches():
    private, plain = make_trainer(), make_trainer(privacy=None)
    batches = [
        [
            poisson_sample(t.streams.numpy("sampling", step=s), 120, t.sampling.rate).tolist()
            for s in range(5)
        ]
        for t in (private, plain)
    ]
    assert batches[0] == batches[1]


def test_the_rate_is_the_declared_one_whatever_the_real_number_of_records():
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, dataset_size=200)
    trainer = make_trainer(privacy=privacy).fit()
    assert trainer.privacy_spent().sampling_rate == 12 / 200
    assert trainer.sampling.steps == 50


def test_microbatches_are_charged_at_half_the_noise():
    privacy = Privacy(noise_multiplier=1.2, delta=1e-3, clip_norm=0.5, microbatch_size=3)
    spent = make_trainer(privacy=privacy).fit().privacy_spent()
    assert spent.effective_noise_multiplier == 0.6
    assert spent.agreement < 1e-6


def test_delta_not_below_one_in_n_is_warned_of_once_however_many_plans_are_made():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for noise_multiplier in (1.0, 2.0):
            weak = Privacy(noise_multiplier=noise_multiplier, delta=0.51, clip_norm=1.0)
            make_trainer(privacy=weak)
            with warnings.catch_warnings():  # which makes Python forget what it has said
                warnings.simplefilter("always")
    assert len(caught) == 1
    assert str(caught[0].message).startswith("delta = 0.51 is not below 1/n = 0.00833: publishing")


def test_accountants_that_disagree_fail_the_run(monkeypatch):
    honest = opacus_rdp.compute_rdp
    monkeypatch.setattr(opacus_rdp, "compute_rdp", lambda **kw: honest(**kw) * (1 + 1e-5))
    with pytest.raises(GuaranteeBroken, match="differ from Opacus's by"):
        make_trainer().fit().privacy_spent()


def test_an_exact_epsilon_above_what_renyi_divergences_prove_fails_the_run(monkeypatch):
    trainer = make_trainer().fit()
    honest = PldAccountant.epsilon

    def inflated(accountant, *arguments, **named):
        bounds = honest(accountant, *arguments, **named)
        return EpsilonBounds(bounds.lower, 2 * bounds.upper)

    monkeypatch.setattr(PldAccountant, "epsilon", inflated)
    with pytest.raises(GuaranteeBroken, match="the exact ε no larger"):
        trainer.privacy_spent()


def test_a_trainer_that_has_not_started_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="fit first"):
        make_trainer().save(tmp_path / "early")
    assert not (tmp_path / "early").exists()


def test_a_closed_trainer_still_knows_what_it_spent():
    trainer = make_trainer().fit()
    before = trainer.privacy_spent()
    trainer.close()
    assert trainer.privacy_spent() == before


def test_a_model_put_in_evaluation_mode_between_steps_trains_on():
    trainer = make_trainer()
    for _ in trainer.run():
        trainer.model.eval()
    assert trainer.done == 30


def test_a_ledger_that_is_not_the_plan_fails_the_run():
    trainer = make_trainer().fit()
    trainer.ledger._db.execute("UPDATE event SET json = replace(json, '1.0', '1.5')")
    trainer.ledger._event_ids = {trainer.plan.sampling.event(1.5): 1}
    with pytest.raises(GuaranteeBroken, match="not those of the plan"):
        trainer.privacy_spent()


def test_the_readme_example_runs():
    inputs, targets = small_data()
    trainer = Trainer(
        small_model(),
        nn.CrossEntropyLoss(),
        (inputs, targets),
        privacy=Privacy(epsilon=3, delta=1e-5, clip_norm=1.0),
        batch_size=16,
        epochs=2,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    )
    assert trainer.fit().privacy_spent().epsilon <= 3
