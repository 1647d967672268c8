"""From scores and coins to lower bounds, operating points, and whether the claim is contradicted.

Each bound says what it assumes. Several statistics share what a bound may err, by shares declared
here; of several theorems that assume the same, the best is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accountant.auditing.against import contradicts
from accountant.auditing.many_models import accuracy_of_models, mu_of_models
from accountant.auditing.one_run import epsilon_f_dp, epsilon_gaussian, epsilon_one_run
from accountant.auditing.operating import (
    Certified,
    OperatingPoint,
    epsilon_of_mu,
    epsilon_of_points,
    mu_of_normal_scores,
    mu_of_points,
    operating_points,
)
from accountant.auditing.planned_guesses import guesses_for
from dpsgd_torch.audit.attacks.ask import Scores
from dpsgd_torch.errors import ConfigError

NOTHING = "assumes nothing"
GAUSSIAN = "assumes a Gaussian trade-off; no bound where batches are sampled"
NORMAL = (
    "assumes a Gaussian trade-off and normal scores of one variance; no bound where batches are "
    "sampled"
)
FALSE_ALARM = 1e-3
"""Chance that an audit of an honest mechanism says that its claim is contradicted, at most."""

_SEVERAL = 8  # models, from which their mean shows anything
_SHARES = {"margin": 0.8, "energy": 0.1, "energy, less": 0.1}


@dataclass(frozen=True)
class Bound:
    """ε from below by one method, at the confidence of the audit."""

    method: str
    epsilon: float
    assumes: str


@dataclass(frozen=True)
class Verdict:
    """What the scores show."""

    bounds: list[Bound]
    best: float
    """The best of what assumes nothing, paid for."""
    points: list[OperatingPoint]
    contradicted: bool
    told: str
    """What was guessed, in words."""


def of_one_record(
    scores: Scores,
    coins: np.ndarray,
    curve: Certified,
    delta: float,
    confidence: float,
    sampled: bool = False,
) -> Verdict:
    """Many runs, each with the record or without it: one independent score a run."""
    coins = coins.ravel()
    points: list[OperatingPoint] = []
    bounds: list[Bound] = []
    alarm = False
    best = {NOTHING: 0.0, GAUSSIAN: 0.0}
    for name, share, values in _statistics(scores, coins):
        kept = coins if len(values) == len(coins) else coins[-len(values) :]
        no, yes = values[~kept], values[kept]
        if len(no) < 2 or len(yes) < 2:
            raise ConfigError(f"models = {len(coins)}: too few to tell apart; train 8 at least")
        mine = operating_points(no, yes, confidence=1 - share * (1 - confidence), name=name)
        points += mine
        best[NOTHING] = max(best[NOTHING], epsilon_of_points(mine, delta))
        best[GAUSSIAN] = max(best[GAUSSIAN], epsilon_of_mu(mu_of_points(mine), delta))
        if not bounds:
            normal = mu_of_normal_scores(no, yes, confidence=confidence)
            bounds.append(Bound(f"noncentral t, {name}", epsilon_of_mu(normal, delta), NORMAL))
        surely = operating_points(no, yes, confidence=1 - share * FALSE_ALARM)
        alarm = alarm or any(point.above(curve) for point in surely)
    bounds = [
        Bound("Clopper–Pearson", best[NOTHING], NOTHING),
        Bound("μ of Clopper–Pearson", best[GAUSSIAN], GAUSSIAN),
        *bounds,
    ]
    bounds = valid(bounds, sampled)
    told = f"{int((~coins).sum())} models without the record, {int(coins.sum())} with it"
    return Verdict(bounds, best[NOTHING], points, alarm, told)


def of_many(
    scores: Scores,
    coins: np.ndarray,
    curve: Certified,
    epsilon: float,
    delta: float,
    confidence: float,
    sampled: bool = False,
) -> Verdict:
    """Canaries with a coin of their own in each model: one guess at many coins.

    Models are independent, so that all coins together are those of one audit.
    """
    (name, values), *_ = scores.items()
    if values.shape != coins.shape:
        raise ConfigError(
            "score: released vectors tell nothing of each canary by themselves; give --score "
            "module:function (released, canary) → number, or --attack one-record"
        )
    flat, right = values.ravel(), coins.ravel()
    m = flat.size
    r = guesses_for(m, epsilon=epsilon, delta=delta, confidence=confidence)
    order = np.argsort(flat, kind="stable")
    half = r // 2
    correct = int(right[order[m - half :]].sum() + half - right[order[:half]].sum())
    free = {"binomial": epsilon_one_run, "f-DP": epsilon_f_dp}
    bounds = [
        Bound(method, bound(m, r, correct, delta=delta, confidence=confidence), NOTHING)
        for method, bound in free.items()
    ]
    shown = epsilon_gaussian(m, r, correct, delta=delta, confidence=confidence)
    bounds.append(Bound("Gaussian f-DP", shown, GAUSSIAN))
    paid = 1 - (1 - confidence) / len(free)
    best = max(bound(m, r, correct, delta=delta, confidence=paid) for bound in free.values())
    shares = _right_by_model(values, coins)
    if len(shares) >= _SEVERAL:
        apart = epsilon_of_mu(mu_of_models(shares, confidence=confidence), delta)
        bounds.append(Bound(f"mean of {len(shares)} models", apart, GAUSSIAN))
    surely = accuracy_of_models(shares, confidence=1 - FALSE_ALARM / 2)
    alarm = contradicts(curve, m, r, correct, significance=FALSE_ALARM / 2)
    alarm = alarm or surely > (1 + curve.delta(0.0)) / 2
    drawn = operating_points(
        flat[~right],
        flat[right],
        ranks=_ranks(int((~right).sum())),
        confidence=confidence,
        name=f"{name}, as if canaries were independent",
    )
    bounds = valid(bounds, sampled)
    return Verdict(bounds, best, drawn, alarm, f"{correct} of {r} guesses at {m} coins were right")


def valid(bounds: list[Bound], sampled: bool) -> list[Bound]:
    """Those that hold for the mechanism: of sampled batches, what assumes nothing of the curve."""
    return [bound for bound in bounds if not sampled or bound.assumes == NOTHING]


def _right_by_model(values: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """(models,) share of coins guessed right, each by the median of its own model's scores."""
    middle = np.median(values, axis=1, keepdims=True)
    return ((values > middle) == coins).mean(1)


def likelihood_ratios(values: np.ndarray, coins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LiRA: scores of the second half of models by normal laws fitted on the first [Carlini 2022].

    The attacker knows the coins of the shadow models alone, so that those of the others are still
    to be guessed.

    Args:
        values: (models, canaries) margins.
        coins: of the same shape.
    """
    shadows = len(values) // 2
    shadow, known = values[:shadows], coins[:shadows]
    inside = np.ma.masked_array(shadow, ~known)
    outside = np.ma.masked_array(shadow, known)
    pooled = np.ma.concatenate([inside - inside.mean(0), outside - outside.mean(0)])
    spread = float(np.ma.std(pooled)) or 1.0
    own = np.ma.concatenate([inside - inside.mean(0), outside - outside.mean(0)]).std(0)
    # a canary's own spread where shadows are many, else that of all [Carlini 2022, Sec. VI]
    deviation = own.filled(spread) if shadows >= 32 else np.full(values.shape[1], spread)
    deviation = np.maximum(deviation, 1e-3 * spread)
    with_it, without = inside.mean(0).filled(0.0), outside.mean(0).filled(0.0)
    tested = values[shadows:]
    ratio = ((tested - without) ** 2 - (tested - with_it) ** 2) / (2 * deviation**2)
    seen = (known.sum(0) > 0) & (known.sum(0) < shadows)
    return np.where(seen, ratio, 0.0), coins[shadows:]


def _statistics(scores: Scores, coins: np.ndarray) -> Iterator[tuple[str, float, np.ndarray]]:
    """(name, share of what may err, one value a run) of all that is tried."""
    if "own" in scores:
        yield "own", 1.0, scores["own"].ravel()
        return
    if "vector" in scores:
        yield "learned direction", 0.9, _along(scores["vector"], coins)
        yield "energy", 0.05, np.log((scores["vector"] ** 2).mean(1) + 1e-300)
        yield "energy, less", 0.05, -np.log((scores["vector"] ** 2).mean(1) + 1e-300)
        return
    yield "margin", _SHARES["margin"], scores["margin"].ravel()
    yield "energy", _SHARES["energy"], scores["energy"].ravel()
    yield "energy, less", _SHARES["energy, less"], -scores["energy"].ravel()


def _along(vectors: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """Scores of the later half along the direction that the first half shows."""
    half = len(vectors) // 2
    first, known = vectors[:half], coins[:half]
    if known.all() or not known.any():
        return vectors[half:] @ first.mean(0)
    apart = first[known].mean(0) - first[~known].mean(0)
    residual = first - np.where(known[:, None], first[known].mean(0), first[~known].mean(0))
    spread = residual.std(0) + 1e-12
    t = apart / spread
    kept = min(1.0, max(16, half) / t.size)  # of more coordinates than models, the surest
    sure = np.abs(t) >= np.quantile(np.abs(t), 1 - kept)
    return vectors[half:] @ np.where(sure, apart / spread**2, 0.0)


def _ranks(count: int) -> list[int]:
    return sorted({max(1, round(count * share)) for share in (0.001, 0.01, 0.1, 0.5)})
