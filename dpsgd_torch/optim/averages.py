"""Averaged weights: an exponential average, and the mean over the last part of a run."""

from __future__ import annotations

import math
from typing import Any

from accountant.errors import check
from dpsgd_torch.optim.asked import read
from dpsgd_torch.optim.base import Average


class Exponential(Average):
    """Exponential moving average of the weights [Polyak, Juditsky 1992; De et al. 2022, Section 3].

    ``decay`` as in ``torch.optim.swa_utils.get_ema_multi_avg_fn``; unlike there, where the first
    weights are copied, the start is corrected for: after t steps the weights of step i count
    (1 − decay) decay^(t − i) / (1 − decay^t).

    >>> Exponential(0.9).factors(0, 10)[0]
    0.9
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        check(0 < decay < 1, "decay", decay, "must lie strictly between 0 and 1")
        self.decay = decay

    def factors(self, step: int, steps: int) -> tuple[float, float]:
        return self.decay, 1 - self.decay

    def describe(self) -> str:
        return f"an exponential average (decay {self.decay:g}) of those after each step"

    def to_json(self) -> dict[str, Any]:
        return {"decay": self.decay}


class Tail(Average):
    """Uniform mean of the weights over the last ``fraction`` of the planned steps.

    [Polyak, Juditsky 1992; Rakhlin, Shamir, Sridharan 2012, Section 4]; the running mean of
    ``torch.optim.swa_utils.AveragedModel`` from a step that the plan gives. Before it the last
    iterate stands for itself. A run that is extended goes on with the steps it counted, or begins
    anew where its new last part begins later.

    >>> [Tail(0.5).factors(step, 4) for step in range(4)]
    [(0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0)]
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__()
        check(0 < fraction <= 1, "fraction", fraction, "must lie in (0, 1]")
        self.fraction = fraction

    def factors(self, step: int, steps: int) -> tuple[float, float]:
        counts = step >= steps - max(1, math.ceil(self.fraction * steps))
        return float(counts), float(counts)

    def describe(self) -> str:
        return f"the mean of those after each step in the last {self.fraction:g} of the run"

    def to_json(self) -> dict[str, Any]:
        return {"fraction": self.fraction}


def average_of(given: str | Average | None) -> Average | None:
    """One that was given, or asked for as ``ema:DECAY`` or ``tail:FRACTION``.

    >>> average_of("tail:0.25").describe()
    'the mean of those after each step in the last 0.25 of the run'
    """
    if given is None or isinstance(given, Average):
        return given
    kind, number = read("average", given)
    if number is None:
        return None
    return {"ema": Exponential, "tail": Tail}[kind](number)
