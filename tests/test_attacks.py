"""Attacks on training functions: honest ones lie below what is claimed, planted faults above."""

import json

import audited_trainings as trainings
import numpy as np
import pytest
import torch
from audited_trainings import tiny_data

from accountant import Gaussian, PldAccountant, PoissonSampled, TradeOff
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.audit import attacks
from dpsgd_torch.audit.attacks.attack import audit_training
from dpsgd_torch.audit.attacks.canary import make_canaries
from dpsgd_torch.audit.attacks.verdict import likelihood_ratios
from dpsgd_torch.errors import ConfigError, RunError

DELTA = 1e-5


def claim(noise=1.0, rate=1.0, steps=1):
    event = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
    epsilon = PldAccountant().compose(event, steps).epsilon(DELTA).upper
    return {"epsilon": epsilon, "delta": DELTA, "curve": TradeOff([(event, steps)])}


def audit(train, **settings):
    return audit_training(train, tiny_data(), **{**claim(), "models": 64, **settings})


SAMPLED = {**claim(0.25, 0.2, 5), "score": trainings.strongest_step, "models": 240}


@pytest.mark.parametrize("attack", ["one-record", "one-run", "lira"])
def test_an_honest_training_lies_below_its_claim(attack):
    settings = {"canaries": 20} if attack != "one-record" else {}
    report = audit(trainings.honest, attack=attack, **settings)
    assert report.faults == []
    assert report.best < report.epsilon


def test_half_the_noise_is_found_by_one_record_and_by_many_canaries():
    assert audit(trainings.half_noise, models=500).faults
    assert audit(trainings.half_noise, attack="one-run", canaries=20).faults
    assert audit(trainings.tenth_noise).faults


def test_real_members_are_told_by_likelihood_ratios_where_noise_is_missing():
    settings = {**claim(4.0), "attack": "lira", "canaries": 5, "models": 200}
    report = audit(trainings.tenth_noise, **settings)
    assert report.faults
    assert report.best > audit(trainings.honest, **settings).best


def test_a_record_in_every_batch_and_shuffled_batches_are_found_by_what_each_step_released():
    report = audit(trainings.poisson_updates, **SAMPLED)
    assert report.faults == []
    assert {bound.assumes for bound in report.verdict.bounds} == {"assumes nothing"}
    assert audit(trainings.last_always_updates, **SAMPLED).faults
    assert audit(trainings.shuffled_updates, **SAMPLED).faults


def test_a_claim_of_epsilon_and_delta_alone_is_tested_more_weakly():
    settings = {"epsilon": claim()["epsilon"], "curve": None, "models": 200}
    report = audit(trainings.half_noise, **settings)
    assert report.faults == []
    assert report.doubts  # above the claim, if its trade-off is a Gaussian's
    assert "assumes a Gaussian trade-off" in str(report)
    assert "by its ε and δ alone" in str(report)


def test_what_assumes_more_is_closer_and_below_the_truth():
    report = audit(trainings.honest, attack="one-run", canaries=20)
    bounds = {bound.method: bound.epsilon for bound in report.verdict.bounds}
    assert bounds["binomial"] < bounds["Gaussian f-DP"] < report.epsilon
    assert bounds["Gaussian f-DP"] < bounds["mean of 64 models"] < report.epsilon


def test_released_vectors_are_attacked_along_the_direction_that_half_of_the_models_show():
    report = audit(trainings.of_plain_length, models=100)
    assert report.faults == []
    names = {point.name for point in report.verdict.points}
    assert names == {"learned direction", "energy", "energy, less"}
    assert audit(trainings.of_little_noise, models=240).faults


@pytest.mark.filterwarnings("ignore:local, not covered by ε")
def test_ours_is_audited_like_anybody_elses():
    def train(data, seed):
        model = torch.nn.Linear(30, 3, bias=False)
        torch.nn.init.zeros_(model.weight)
        Trainer(
            model, torch.nn.CrossEntropyLoss(), data,
            privacy=Privacy(noise_multiplier=1.0, delta=DELTA, clip_norm=0.5),
            batch_size=len(data[0]), epochs=1, seed=seed,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ).fit()  # fmt: skip
        return model

    report = audit(train, models=8, attack="one-run", canaries=10)
    assert report.faults == []
    assert report.records == 60


def test_modules_are_asked_in_evaluation_mode():
    report = audit(trainings.as_module, models=8)
    same = audit(trainings.honest, models=8)
    assert [b.epsilon for b in report.verdict.bounds] == pytest.approx(
        [b.epsilon for b in same.verdict.bounds], abs=1e-3
    )


def test_canaries_of_one_audit_share_no_pixel_and_no_record_has_any():
    data = tiny_data()
    made = make_canaries(data, "pixels", 20, np.random.default_rng(0))
    assert ((made.rows[0] > 0).sum(0) <= 1).all()
    assert (made.rows[0][:, :10] == 0).all()
    with pytest.raises(ConfigError, match="20 features are the same in all records"):
        make_canaries(data, "pixels", 21, np.random.default_rng(0))


def test_mislabeled_canaries_have_another_label_and_records_leave_the_base():
    data = tiny_data()
    made = make_canaries(data, "mislabeled", 10, np.random.default_rng(0))
    same = (data[0][:, None] == made.rows[0][None]).all(2).nonzero()
    assert len(same) == 10
    assert all(data[1][i] != made.rows[1][j] for i, j in same)
    made = make_canaries(data, "records", 10, np.random.default_rng(0))
    assert len(made.base[0]) == 50
    assert len(make_canaries(data, "blank", 1, np.random.default_rng(0)).rows[0]) == 1


def test_likelihood_ratios_use_no_coin_of_the_models_that_are_attacked():
    rng = np.random.default_rng(0)
    coins = rng.random((40, 10)) < 0.5
    values = rng.normal(size=(40, 10)) + 2 * coins
    ratios, left = likelihood_ratios(values, coins)
    others = coins.copy()
    others[20:] = ~others[20:]
    assert np.array_equal(ratios, likelihood_ratios(values, others)[0])
    assert ratios[left].mean() > ratios[~left].mean() + 1


def test_several_queries_of_a_canary_are_averaged():
    report = audit(trainings.honest, models=8, queries=4)
    assert report.faults == []


def test_the_report_is_data_and_a_page_of_its_own(tmp_path):
    report = audit(trainings.tenth_noise, models=64)
    report.write(tmp_path)
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["faults"] == report.faults != []
    assert told["bounds"][0]["assumes"] == "assumes nothing"
    page = (tmp_path / "audit.html").read_text()
    assert "NOT below the certified curve" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (trainings.seedless, "models 0 and 1 are the same though their seeds differ"),
        (trainings.not_finite, "what is released is not finite"),
        (trainings.raising, "raises ValueError: no such weights: …"),
        (trainings.no_model, "gives str; must give a model"),
        (trainings.too_few_answers, r"model: answers \(1, 3\) to 1?"),
    ],
)
def test_trainings_that_cannot_be_audited_are_refused(train, message):
    settings = {"attack": "one-run", "canaries": 5} if "answers" in message else {}
    with pytest.raises(RunError, match=message):
        audit(train, **settings)


def test_a_seed_that_does_nothing_is_seen_among_canaries_with_coins_too():
    with pytest.raises(RunError, match="are the same though their seeds differ"):
        audit(trainings.seedless, attack="one-run", canaries=20, models=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": "two-run"}, "attack = 'two-run': must be one of"),
        ({"canary": "bird"}, "canary = 'bird': must be one of"),
        ({"canaries": 3}, "canaries = 3: one-record tells one apart"),
        ({"models": 2}, "models"),
        ({"attack": "lira", "canaries": 60}, "there are 59 of kind records"),
        ({"attack": "one-run", "models": 1, "canaries": 5}, "5 coins in all show nothing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        audit(trainings.honest, **settings)


def test_the_room_says_what_it_is_for():
    assert "training function" in attacks.__doc__
