"""A budget is kept to the step: not one too many, and not one too few."""

import math

import pytest

from accountant import BudgetExceeded, Gaussian, Ledger, PoissonSampled
from accountant.calibration import cost
from dpsgd_torch.privacy.plan import PrivacyPlan, Sampling
from dpsgd_torch.schedules import Constant, Linear


def step(noise=1.0, rate=0.01):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


def with_budget(path, budget, planned=None):
    ledger = Ledger(path, delta=1e-5, budget=budget, planned=planned)
    ledger.begin(first_step=0, environment="cpu")
    return ledger


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_step_that_would_overdraw_is_refused_before_anything_is_written(tmp_path):
    ledger = with_budget(tmp_path / "ledger.sqlite", 1.0)
    ledger.reserve(0, step(noise=20.0))
    before = (contents(tmp_path), ledger.events(), ledger.accountant.epsilon(1e-5))
    with pytest.raises(BudgetExceeded, match=r"step 1 would reach ε = .* > 1 \(δ = 1e-05\); take"):
        ledger.reserve(1, step(noise=0.5))
    assert (contents(tmp_path), ledger.events(), ledger.accountant.epsilon(1e-5)) == before
    assert not ledger.is_charged(1)


def test_after_a_refusal_a_cheaper_step_may_still_pass():
    ledger = with_budget(None, 1.0)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(0, step(noise=0.5))
    ledger.reserve(0, step(noise=20.0))
    assert len(ledger) == 1


def test_a_reopened_ledger_remembers_what_is_left(tmp_path):
    spent = cost([(step(), 50)], 1e-5)
    ledger = with_budget(tmp_path / "ledger.sqlite", spent)
    for number in range(49):
        ledger.reserve(number, step())
    ledger.close()
    again = with_budget(tmp_path / "ledger.sqlite", spent)
    again.reserve(49, step())
    with pytest.raises(BudgetExceeded, match="step 50"):
        again.reserve(50, step())


def test_no_noise_passes_no_finite_budget():
    with pytest.raises(BudgetExceeded):
        with_budget(None, 1e300).reserve(0, step(noise=0.0))


def test_a_cost_too_small_for_a_double_does_not_lift_the_budget():
    """Whatever its own ε is computed to be, it must not make the next comparison false."""
    ledger = with_budget(None, 1.0)
    ledger.reserve(0, step(noise=1e200))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(1, step(noise=0.0))


SAMPLING = Sampling(dataset_size=1000, batch_size=50, steps=20)


@pytest.mark.parametrize("told", [True, False], ids=["told of the plan", "not told"])
@pytest.mark.parametrize(
    ("noise", "epsilon"),
    [
        (Constant(1.0), 0.02),
        (Constant(1.0), 3.0),
        (Constant(1.0), 500.0),
        (Linear(2.0, 1.0, 20), 0.02),
        (Linear(2.0, 1.0, 20), 3.0),
    ],
)
def test_a_calibrated_budget_lets_exactly_the_planned_steps_through(noise, epsilon, told):
    plan = PrivacyPlan(
        sampling=SAMPLING, clip_norm=Constant(1.0), noise_multiplier=noise, delta=1e-5
    ).calibrated(epsilon)
    planned = plan.events() if told else None
    ledger = with_budget(None, epsilon, planned)
    for number in range(20):
        ledger.reserve(number, plan.event(number))
    assert ledger.events() == plan.events()
    assert math.isclose(ledger.epsilon(), epsilon, rel_tol=1e-6)
    assert ledger.epsilon() <= epsilon
    with pytest.raises(BudgetExceeded, match="step 20"):
        ledger.reserve(20, plan.event(19))


def test_a_plan_beyond_the_budget_is_stopped_at_the_last_step_it_pays_for():
    ledger = with_budget(None, cost([(step(), 30)], 1e-5), [(step(), 40)])
    for number in range(30):
        ledger.reserve(number, step())
    with pytest.raises(BudgetExceeded, match="step 30"):
        ledger.reserve(30, step())


def test_a_step_that_was_not_planned_is_priced_for_itself():
    ledger = with_budget(None, cost([(step(), 30)], 1e-5), [(step(), 30)])
    for number in range(29):
        ledger.reserve(number, step())
    with pytest.raises(BudgetExceeded):
        ledger.reserve(29, step(noise=0.5))
    ledger.reserve(29, step())
