"""Attack-aware noise calibration: the least noise that keeps an attacker below a bound.

In place of ε at a δ that stands for no attack [Kulynych et al. 2024]. What is found is checked on
the certified curve, so the answer is on the safe side.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from accountant.calibration import BudgetNotReached, Events, affordable
from accountant.errors import Unreachable, check
from accountant.tradeoff import TradeOff

_BETWEEN = 0.02, 1e5  # the noise multipliers that are considered
_ROUGH, _TURNS = 1e-3, 16
_STILL = 1e-3  # of ε: its square is left of the noise


def calibrate_noise_to_advantage(
    advantage: float,
    events_at: Callable[[float], Events],
    *,
    tolerance: float = 1e-6,
    most_events: int | None = None,
) -> float:
    """The least noise at which no attacker's TPR − FPR exceeds ``advantage``.

    Args:
        advantage: in (0, 1).
        events_at: noise multiplier → the (event, count) pairs of the whole run.
        tolerance: relative, of the noise.
        most_events: as ``TradeOff`` has it: for schedules, quicker and on the side of more noise.

    Raises:
        Unreachable: no noise within bounds does.

    >>> from accountant import Gaussian
    >>> def release(noise):
    ...     return [(Gaussian(noise_multiplier=noise), 1)]
    >>> round(calibrate_noise_to_advantage(0.05, release), 4)  # 2 Φ(1/(2σ)) − 1 = 0.05
    7.9736
    """
    check(0 < advantage < 1, "advantage", advantage, "must lie strictly between 0 and 1")

    def spent(noise: float) -> float:
        return TradeOff(events_at(noise), most_events=most_events).advantage / advantage

    noise = affordable(spent, 1.0, _BETWEEN, tolerance=tolerance)
    return _checked(spent, noise, f"advantage = {advantage:g}")


def calibrate_noise_to_power(
    true_positive_rate: float,
    false_positive_rate: float,
    events_at: Callable[[float], Events],
    *,
    tolerance: float = 1e-6,
    most_events: int | None = None,
) -> float:
    """The least noise at which no test of that FPR has a higher TPR.

    TPR ≤ δ(ε) + exp(ε) FPR at every ε, so the noise is sought for one ε, then the best ε for that
    noise, in turns: each lowers it, and near the end by the square of what is left.

    Args:
        true_positive_rate: the most allowed, above the false-positive rate.
        false_positive_rate: in (0, 1).
        events_at: noise multiplier → the (event, count) pairs of the whole run.
        tolerance: relative, of the noise.
        most_events: as ``TradeOff`` has it: for schedules, quicker and on the side of more noise.

    Raises:
        Unreachable: no noise within bounds does.

    >>> from accountant import Gaussian
    >>> def release(noise):
    ...     return [(Gaussian(noise_multiplier=noise), 1)]
    >>> round(calibrate_noise_to_power(0.02, 0.001, release), 4)  # 1/(Φ⁻¹(0.999) − Φ⁻¹(0.98))
    0.9648
    """
    tpr, fpr = true_positive_rate, false_positive_rate
    check(0 < fpr < 1, "false_positive_rate", fpr, "must lie in (0, 1)")
    rule = f"must lie between the false positives, {fpr:g}, and 1"
    check(fpr < tpr < 1, "true_positive_rate", tpr, rule, "a coin reaches as many")
    epsilon, noise = math.log(tpr / fpr) / 2, 1.0

    def spent(noise: float) -> float:
        line = (
            TradeOff(events_at(noise), most_events=most_events).delta(epsilon)
            + math.expm1(epsilon) * fpr
        )
        return line / (tpr - fpr)

    near, factor = _ROUGH, 4.0
    for _ in range(_TURNS):
        noise, last = affordable(spent, noise, _BETWEEN, tolerance=near, factor=factor), near
        better = TradeOff(events_at(noise), most_events=most_events).best_epsilon(fpr)
        moved = abs(better - epsilon)
        if last == tolerance and moved < _STILL:
            break
        epsilon, factor = better, 1.02
        near = max(tolerance, min(near, moved * moved / 10))
    return _checked(spent, noise, f"true_positive_rate = {tpr:g} at {fpr:g} false ones")


def _checked(spent: Callable[[float], float], noise: float, name: str) -> float:
    if spent(noise) > 1:
        raise Unreachable(
            f"{name}: is exceeded even with a noise multiplier of {noise:g}; raise it, or shorten "
            "the run"
        )
    if noise == _BETWEEN[0]:
        warnings.warn(
            f"{name}: is not reached: the search ends at a noise multiplier of {noise:g}; lower it",
            BudgetNotReached,
            stacklevel=3,
        )
    return noise
