"""Many-run audit: ε from below by an attack's rates over runs with a record and without it."""

from __future__ import annotations

import math

import scipy  # which loads its submodules when they are first used

from accountant.errors import check


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for a probability, each end wrong in (1 − confidence) / 2 of cases at most.

    [Clopper, Pearson 1934].

    >>> [round(end, 4) for end in clopper_pearson(8, 10)]
    [0.4439, 0.9748]
    """
    check(trials >= 1, "trials", trials, "must be at least 1")
    check(0 <= successes <= trials, "successes", successes, f"must lie in 0 … {trials}")
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    half = (1 - confidence) / 2
    beta = scipy.stats.beta
    low = float(beta.ppf(half, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.isf(half, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def epsilon_from_rates(
    true_positives: int,
    runs_with: int,
    false_positives: int,
    runs_without: int,
    *,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """ε from below by true and false positives of independent runs [Jagielski et al. 2020].

    ε ≥ log((TPR − δ) / FPR) and ε ≥ log((TNR − δ) / FNR), of limits that hold together: one side of
    a Clopper–Pearson interval each for TPR and FPR, whose errors add up to 1 − confidence. The
    attack's threshold is chosen on other runs than these.

    >>> round(epsilon_from_rates(500, 1000, 10, 1000, delta=1e-5), 3)
    3.242
    """
    tpr = clopper_pearson(true_positives, runs_with, confidence)[0]
    fpr = clopper_pearson(false_positives, runs_without, confidence)[1]
    best = 0.0
    for hit, miss in ((tpr, fpr), (1 - fpr, 1 - tpr)):
        if hit > delta and miss > 0:
            best = max(best, math.log((hit - delta) / miss))
    return best
