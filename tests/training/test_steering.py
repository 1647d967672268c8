"""Between steps: validation that is paid for, learning rates by step, stopping, the best epoch."""

import numpy as np
import pytest
import torch
from scipy import stats
from small_problem import make_trainer, small_data, weights
from torch import nn

from accountant import Gaussian, Ledger, exact
from dpsgd_torch import Privacy
from dpsgd_torch.app.report.promises import Promises
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.privacy.guarantee import priced_events
from dpsgd_torch.schedules import Cosine, Linear, Table
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.validation import HeldOut, Validation, noisy_mean

LOSS = per_example(nn.CrossEntropyLoss())


def private_rows(**changes) -> Validation:
    settings = {"noise_multiplier": 5.0, "bound": 2.0, **changes}
    return Validation(tensors=small_data(40, seed=9), **settings)


def test_each_private_validation_is_charged_before_it_is_used():
    trainer = make_trainer(validation=private_rows()).fit()
    events = dict(trainer.ledger.accountant.events)
    assert events[Gaussian(noise_multiplier=5.0)] == 3  # epochs
    assert len(trainer.history.scores) == 3
    together = exact()
    together.compose_all(trainer.plan.events())
    assert trainer.privacy_spent().epsilon == pytest.approx(together.epsilon(1e-3).upper, rel=1e-6)
    alone = make_trainer().fit().privacy_spent().epsilon
    assert trainer.privacy_spent().epsilon > alone


def test_a_calibrated_run_leaves_room_for_its_validation():
    budget = Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5)
    trainer = make_trainer(privacy=budget, validation=private_rows()).fit()
    assert 1.99 < trainer.privacy_spent().epsilon <= 2.0
    assert trainer.done == 30
    plain = make_trainer(privacy=budget)
    assert trainer.plan.step(0).noise_multiplier > plain.plan.step(0).noise_multiplier


def test_public_validation_is_free_and_exact():
    trainer = make_trainer(validation=private_rows(public=True)).fit()
    assert all(not isinstance(event, Gaussian) for event, _ in trainer.ledger.events())
    inputs, targets = small_data(40, seed=9)
    trainer.model.eval()
    expected = float(LOSS(trainer.model(inputs), targets).detach().mean())
    assert trainer.history.scores[-1] == pytest.approx(expected, rel=1e-6)


def drawn(scores, count=4000, **changes):
    asked = private_rows(**changes)
    rng = np.random.default_rng(0)
    return np.array([noisy_mean(np.array(scores), asked, 10, rng) for _ in range(count)])


def test_what_is_released_is_the_clipped_sum_with_the_planned_noise_over_the_declared_size():
    law = stats.norm((0.5 + 2.0 + 0.0 + 2.0) / 10, 5.0 * 2.0 / 10)
    got = drawn([0.5, 7.0, -3.0, np.nan])
    assert stats.kstest(got, law.cdf).pvalue > 1e-6
    for planted in (2 / 3, 3 / 2):
        wrong = drawn([0.5, 7.0, -3.0, np.nan], noise_multiplier=5.0 * planted)
        assert stats.kstest(wrong, law.cdf).pvalue < 1e-6


def test_a_unit_moves_the_sum_by_at_most_the_bound_however_many_rows_it_has():
    inputs, targets = small_data(40, seed=9)
    ids = np.repeat(np.arange(4), 10)
    always_wrong = lambda outputs, _: torch.full((len(outputs),), 100.0)  # noqa: E731
    model, sums = nn.Flatten(), []
    for kept in (slice(0, 40), slice(10, 40)):
        asked = Validation(
            tensors=(inputs[kept], targets[kept]),
            units=ids[kept],
            noise_multiplier=1e-9,
            bound=0.7,
            size=1,
            score=always_wrong,
        )
        held_out = HeldOut(asked, LOSS, torch.device("cpu"))
        sums.append(held_out.release(held_out.scores(model), np.random.default_rng(0)))
    assert sums[0] - sums[1] == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize("broken_at", [4, 10, 17, 20, 29])
def test_a_resumed_run_validates_slows_and_stops_as_an_uninterrupted_one(tmp_path, broken_at):
    settings = {
        "validation": private_rows(),
        "early_stopping": EarlyStopping(plateau=1, plateau_factor=0.5, keep_best=True),
        "rate_schedule": Cosine(1.0, 0.1, 30),
    }
    whole = make_trainer(run_dir=tmp_path / "whole", **settings).fit()
    part = make_trainer(run_dir=tmp_path / "part", **settings)
    for at in part.run():
        if at.step == broken_at:
            break
    part.close()
    again = make_trainer(run_dir=tmp_path / "part", **settings).resume().fit()
    assert again.history.scores == whole.history.scores
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.events() == whole.ledger.events()


def test_learning_rates_follow_their_schedule_step_by_step():
    seen = []
    trainer = make_trainer(rate_schedule=Table((0, 10, 20), (1.0, 0.5, 0.1)))
    for at in trainer.run():
        seen.append((at.step, trainer.optimizer.param_groups[0]["lr"]))
    rates = dict(seen)
    assert (rates[10], rates[11], rates[21]) == (0.2, 0.1, pytest.approx(0.02))


def test_training_stops_when_the_score_has_not_improved_for_so_long():
    watch = EarlyStopping(patience=2)
    trainer = make_trainer(
        epochs=20,
        validation=private_rows(public=True, score=lambda out, _: torch.ones(len(out))),
        early_stopping=watch,
    ).fit()
    assert len(trainer.history.epochs) == 3
    assert "no better validation score in 2 epochs" in trainer.ended
    spent = trainer.privacy_spent()
    assert spent.steps == trainer.done < trainer.sampling.steps
    whole = make_trainer(epochs=20).fit().privacy_spent()
    assert spent.epsilon == pytest.approx(whole.epsilon, rel=1e-6)  # when to stop was seen
    assert trainer.ledger.epsilon() < 0.7 * spent.epsilon


def test_the_best_epochs_weights_are_kept():
    trainer = make_trainer(
        validation=private_rows(public=True), early_stopping=EarlyStopping(keep_best=True)
    )
    kept = {}
    for at in trainer.run():
        if at.record:
            kept[at.record.validation] = weights(trainer.model).clone()
    assert torch.equal(weights(trainer.model), kept[min(kept)])


def test_folds_share_one_ledger_and_one_budget():
    budget = Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5, runs=2)
    planned = make_trainer(privacy=budget, validation=private_rows()).plan.events()
    ledger = Ledger(None, delta=1e-3, budget=2.0, planned=planned)
    trainers = []
    for fold in range(2):
        trainers.append(
            make_trainer(
                privacy=budget,
                validation=private_rows(),
                seed=fold,
                ledger=ledger.part(f"fold-{fold + 1}"),
            ).fit()
        )
    assert sum(t.done for t in trainers) == 60
    assert len(ledger) == 66
    assert 1.99 < trainers[0].privacy_spent().epsilon <= 2.0


@pytest.mark.parametrize("schedule", [Linear(1.0, 0.0, 30), Table((0, 3), (1.0, 0.0))])
def test_a_schedule_that_reaches_zero_noise_is_refused(schedule):
    with pytest.raises(ValueError, match=r"noise_multiplier at step (29|3) = 0.0: must be > 0"):
        make_trainer(privacy=Privacy(noise_multiplier=schedule, delta=1e-3, clip_norm=0.5))
    budget = Privacy(epsilon=1.0, noise_multiplier=schedule, delta=1e-3, clip_norm=0.5)
    with pytest.raises(ValueError, match="noise_multiplier at step"):
        make_trainer(privacy=budget)


def test_a_hard_stop_bounds_what_an_early_stop_is_priced_at():
    """Without it the whole plan is priced; the budget would have ended that plan before."""
    stops_at_once = {
        "validation": private_rows(public=True, score=lambda out, _: torch.ones(len(out))),
        "early_stopping": EarlyStopping(patience=1),
        "epochs": 20,
    }
    tight = Privacy(epsilon=2.6, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    spent = make_trainer(privacy=tight, **stops_at_once).fit().privacy_spent()
    assert spent.watched
    assert spent.epsilon == 2.6
    free = make_trainer(**stops_at_once).fit().privacy_spent()
    assert free.epsilon > 2.6


def test_what_many_rows_are_promised_after_an_early_stop_is_above_what_one_is():
    trainer = make_trainer(
        epochs=20,
        validation=private_rows(public=True, score=lambda out, _: torch.ones(len(out))),
        early_stopping=EarlyStopping(patience=1),
    ).fit()
    spent = trainer.privacy_spent()
    events = priced_events(trainer.plan, trainer.ledger, watched=spent.watched)
    promised = Promises.of(spent, events, "drug").by_rows
    assert [e for _, e in promised] == sorted(e for _, e in promised)
    assert promised[1][1] > 2 * promised[0][1]
