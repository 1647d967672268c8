"""Batch, steps, noise, clip norm and learning rate for n, ε, parameters and time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from accountant import calibrate_noise, dpsgd_events, dpsgd_steps
from accountant.calibration import Events, exact
from accountant.errors import check, check_delta
from dpsgd_torch.advice.law import ENOUGH, Law, mu_of, noise_of_run

STEPS = (20, 30, 45, 60)
"""Numbers of steps that are looked at: with more, up to 180, no more was kept."""

_CLIP = 1.0
_CLOSE = 0.003  # of what fewer steps would keep: with more, less hangs on the rate
_LITTLE = 0.02  # of what is kept
_MOST_EPSILON, _MOST_TIMES = 100.0, 1000  # that "what would it take" looks up to


@dataclass(frozen=True, kw_only=True)
class Asked:
    """n records, a budget, a model of so many parameters, and seconds if they are counted.

    Attributes:
        kind: "head", linear on features of norm 4, from zero; or "network", any other.
        seconds: for the whole run, with ``example_seconds`` of a private step; None: any.
    """

    n: int
    epsilon: float
    delta: float
    kind: str
    parameters: int
    seconds: float | None = None
    example_seconds: float | None = None

    def __post_init__(self) -> None:
        check(self.n >= 2, "n", self.n, "must be at least 2 records")
        check(0 < self.epsilon <= _MOST_EPSILON, "epsilon", self.epsilon,
              f"must lie above 0 and be at most {_MOST_EPSILON:g}")  # fmt: skip
        check_delta(self.delta)
        check(self.parameters >= 1, "parameters", self.parameters, "must be at least 1")
        for name in ("seconds", "example_seconds"):
            value = getattr(self, name)
            check(value is None or 0 < value < math.inf, name, value, "must be a number > 0")

    @property
    def examples(self) -> float:
        """Whose gradients there is time for, over all steps."""
        if self.seconds is None or self.example_seconds is None:
            return math.inf
        return self.seconds / self.example_seconds


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Settings, exactly priced, and what the law expects of them.

    Attributes:
        epochs: that are ``steps`` steps of this batch, as a Trainer counts them.
        epsilon: lower and upper end of what the run costs at δ.
        kept: part of the accuracy above chance that is reached without noise in 180 steps.
        limit: "noise", "time", or "model" where neither costs much: what stands in the way of more.
        half: n, and ε, at which half as much would be lost; None beyond 1,000 n or ε = 100.
    """

    batch_size: int
    steps: int
    epochs: float
    noise_multiplier: float
    clip_norm: float
    learning_rate: float
    epsilon: tuple[float, float]
    kappa: float
    kept: float
    limit: str
    half: tuple[int | None, float | None]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def suggest(asked: Asked) -> Suggestion:
    """Settings that the laws suggest, with noise that costs at most ε by the exact accountant.

    >>> found = suggest(Asked(n=2000, epsilon=3, delta=1e-5, kind="head", parameters=610))
    >>> found.epsilon[1] <= 3, found.clip_norm, found.batch_size <= 2000
    (True, 1.0, True)
    """
    law = Law.of(asked.kind)
    check(asked.examples >= STEPS[0], "minutes", (asked.seconds or 0) / 60,
          f"are too few for {STEPS[0]} steps of one example", "give more")  # fmt: skip
    batch, steps = _chosen(asked, law)
    kappa, kept = _expected(asked, law, batch, steps)
    epochs = _epochs(asked.n, batch, steps)

    def events(noise: float) -> Events:
        return dpsgd_events(
            dataset_size=asked.n, batch_size=batch, noise_multiplier=noise, steps=steps
        )

    noise = calibrate_noise(asked.epsilon, asked.delta, events)
    spent = exact()
    spent.compose_all(events(noise))
    bounds = spent.epsilon(asked.delta)
    return Suggestion(
        batch_size=batch,
        steps=steps,
        epochs=epochs,
        noise_multiplier=noise,
        clip_norm=_CLIP,
        learning_rate=_short(law.learning_rate(kappa, steps)),
        epsilon=(bounds.lower, bounds.upper),
        kappa=kappa,
        kept=kept,
        limit=_limit(asked, kept),
        half=_half(asked, law),
    )


def expected_kept(asked: Asked) -> float:
    """The part that is kept with settings that suit this n and ε: no accountant is asked."""
    law = Law.of(asked.kind)
    return _expected(asked, law, *_chosen(asked, law))[1]


def _chosen(asked: Asked, law: Law) -> tuple[int, int]:
    """The most steps, with batches as large as it takes, that keep nearly the most."""
    options = [(_batch(asked, steps), steps) for steps in STEPS if asked.examples >= steps]
    kept = [_expected(asked, law, *option)[1] for option in options]
    return [o for o, k in zip(options, kept, strict=True) if k >= max(kept) - _CLOSE][-1]


def _batch(asked: Asked, steps: int) -> int:
    enough = ENOUGH * mu_of(asked.epsilon, asked.delta) * asked.n / math.sqrt(steps)
    return max(1, int(min(asked.n, max(1, enough), asked.examples / steps)))


def _expected(asked: Asked, law: Law, batch: int, steps: int) -> tuple[float, float]:
    kappa = noise_of_run(asked.n, batch, steps, mu_of(asked.epsilon, asked.delta))
    return kappa, law.share_kept(kappa, steps)


def _limit(asked: Asked, kept: float) -> str:
    """Time where it costs as much as all the rest; else noise, unless that costs little."""
    free = expected_kept(dataclasses.replace(asked, seconds=None))
    if free - kept > (1 - kept) / 2:
        return "time"
    return "noise" if 1 - kept > _LITTLE else "model"


def _half(asked: Asked, law: Law) -> tuple[int | None, float | None]:
    free = dataclasses.replace(asked, seconds=None)
    goal = (1 + expected_kept(free)) / 2

    def reached(**changed: Any) -> bool:
        return expected_kept(dataclasses.replace(free, **changed)) >= goal

    n = _least(lambda n: reached(n=round(n)), asked.n, asked.n * _MOST_TIMES)
    epsilon = _least(lambda e: reached(epsilon=e), asked.epsilon, _MOST_EPSILON)
    return None if n is None else round(n), epsilon


def _least(holds: Any, low: float, high: float) -> float | None:
    """To a hundredth, by halving in logarithms."""
    if not holds(high):
        return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _epochs(n: int, batch: int, steps: int) -> float:
    """The shortest number that a Trainer makes ``steps`` steps of."""
    for digits in range(1, 15):
        for rounded in (math.floor, math.ceil):
            epochs = rounded(steps * batch / n * 10**digits) / 10**digits
            if epochs > 0 and dpsgd_steps(dataset_size=n, batch_size=batch, epochs=epochs) == steps:
                return epochs
    return steps * batch / n


def _short(value: float) -> float:
    """Two digits: the law knows no more."""
    return float(f"{value:.2g}")
