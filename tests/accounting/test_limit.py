"""A risk in place of a budget in ε: noise that keeps it, and a ledger that refuses to pass it."""

import pytest

from accountant import BudgetExceeded, Gaussian, InvalidValue, Ledger, PoissonSampled
from accountant.risk.limit import RiskLimit


def scheduled(noise, steps=23):
    each = [noise * (1 - 0.5 * i / steps) for i in range(steps)]
    return [
        (PoissonSampled(sampling_rate=0.09, event=Gaussian(noise_multiplier=x)), 1) for x in each
    ]


@pytest.mark.parametrize(
    "limit", [RiskLimit(advantage=0.1), RiskLimit(tpr_at_fpr=(0.1, 0.01))], ids=str
)
def test_a_schedules_noise_keeps_the_limit_and_little_less_would_not(limit):
    noise = limit.calibrate(scheduled)
    assert limit.reached(scheduled(noise)) <= limit.most
    assert limit.reached(scheduled(noise * 0.99)) > limit.most


def test_a_ledger_lets_all_that_was_planned_pass_and_no_step_more():
    event, limit = Gaussian(noise_multiplier=40.0), RiskLimit(advantage=0.1)
    count = next(n for n in range(1, 999) if limit.reached([(event, n + 1)]) > 0.1)
    ledger = Ledger(None, delta=1e-5, planned=[(event, count)], limit=limit)
    ledger.begin(first_step=0, environment="cpu")
    for step in range(count):
        ledger.reserve(step, event)
    with pytest.raises(BudgetExceeded, match=rf"^step {count} would let an attacker reach 10\.0"):
        ledger.reserve(count, event)


def test_one_risk_is_asked_and_one_that_there_is():
    with pytest.raises(InvalidValue, match="one of the two"):
        RiskLimit()
    with pytest.raises(InvalidValue, match=r"^tpr_at_fpr = \(0.01, 0.02\): must be TPR > FPR"):
        RiskLimit(tpr_at_fpr=(0.01, 0.02))
    with pytest.raises(InvalidValue, match=r"^advantage = 1: must"):
        RiskLimit(advantage=1)
    with pytest.raises(InvalidValue, match="in place of a budget"):
        Ledger(None, delta=1e-5, budget=1.0, limit=RiskLimit(advantage=0.1))
