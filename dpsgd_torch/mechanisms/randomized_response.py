"""Labels randomized once, before anything looks at them; inputs are public.

Every label is told as it is with probability e^ε / (e^ε + k − 1), else as another of the k, evenly
[Warner 1965; Kairouz, Oh, Viswanath 2016, Section 4.1]. What is trained on the answers is private
at that ε, however long it is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from accountant import Event, LedgerError, RandomizedResponse, Relation
from accountant.errors import check
from dpsgd_torch.mechanisms.laplace import refuse_dearer
from dpsgd_torch.mechanisms.library import opendp

_ROUNDING = 1e-12


@dataclass(frozen=True)
class LabelPrivacy:
    """k-ary randomized response on class labels.

    >>> round(LabelPrivacy(classes=10, epsilon=math.log(9)).told, 12)
    0.5
    """

    classes: int
    epsilon: float

    def __post_init__(self) -> None:
        check(self.classes >= 2, "classes", self.classes, "must be at least 2")
        check(0 < self.epsilon < 50, "label_epsilon", self.epsilon, "must lie between 0 and 50")

    @property
    def told(self) -> float:
        """How likely a label is told as it is: a float below where it would cost more than ε."""
        told = 1 / (1 + (self.classes - 1) * math.exp(-self.epsilon))
        while told == 1 or self._cost(told) > self.epsilon * (1 + _ROUNDING):
            told = math.nextafter(told, 0.0)
        return told

    def _cost(self, told: float) -> float:
        return math.log(told * (self.classes - 1) / (1 - told))

    @property
    def event(self) -> Event:
        k = self.classes
        return RandomizedResponse(
            noise_parameter=(1 - self.told) * k / (k - 1),
            categories=k,
            relation=Relation.LABEL_CHANGE,
        )

    @classmethod
    def charged_as(cls, event: Event) -> LabelPrivacy | None:
        """What was asked for where ``event`` was charged; None for an event of another kind.

        ε is the one that is charged as this very event, or a little above what the event costs.

        >>> asked = LabelPrivacy(classes=10, epsilon=3.0)
        >>> LabelPrivacy.charged_as(asked.event) == asked
        True
        """
        if not isinstance(event, RandomizedResponse) or event.relation != Relation.LABEL_CHANGE:
            return None
        p, k = event.noise_parameter, int(event.categories)
        exact = math.log1p((1 - p) * k / p) if p > 0 else math.inf
        if not 0 < exact < 50:
            return None
        for digits in range(1, 17):
            asked = cls(k, float(f"{exact:.{digits}g}"))
            if asked.event == event:
                return asked
        return cls(k, exact * (1 + _ROUNDING))

    def refuse_dearer(self) -> None:
        """Refuse, before anything is charged, an ε at which OpenDP's own price would be above it.

        Raises:
            GuaranteeBroken: so near to no noise that π rounds up.
        """
        refuse_dearer(self._answer().map(1), self.epsilon, "randomized response")

    def _answer(self) -> Any:
        return opendp().m.make_randomized_response(list(range(self.classes)), self.told)

    def draw(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) labels 0 … k − 1 → (n,) answers.

        Raises:
            GuaranteeBroken: OpenDP's own price of an answer is above ε.
        """
        self.refuse_dearer()
        answer = self._answer()
        return np.array([answer(int(label)) for label in labels], dtype=np.int64)

    def debiased(self) -> Debiased:
        """The loss to train on answers with."""
        return Debiased(self)


@dataclass(frozen=True)
class Debiased:
    """(logits, answers) → (n,), in the mean over answers the cross entropy of the true labels.

    ℓ(o, y) − τ Σ_j ℓ(o, j), over π − τ, with π the chance of the truth and τ of each other label
    [Natarajan et al. 2013, Lemma 1; Patrini et al. 2017, Theorem 1]. Its text says which answers it
    is for, so that a run with others does not go on with it. Outputs may have logits instead.
    """

    privacy: LabelPrivacy

    def __call__(self, outputs: Any, answers: torch.Tensor) -> torch.Tensor:
        told = self.privacy.told
        other = (1 - told) / (self.privacy.classes - 1)
        each = -functional.log_softmax(getattr(outputs, "logits", outputs), dim=1)
        own = each.gather(1, answers[:, None])[:, 0]
        return (own - other * each.sum(dim=1)) / (told - other)


def label_epsilon(events: list[tuple[Event, int]], ledger: Path) -> float:
    """ε, at δ = 0, of all answers in a ledger: those that were lost count too.

    Raises:
        LedgerError: it holds none, or something else.
    """
    total = 0.0
    for event, count in events:
        privacy = LabelPrivacy.charged_as(event)
        if privacy is None:
            raise LedgerError(f"ledger {ledger}: holds {event}, which is no answer about labels")
        total += privacy.epsilon * count
    if not total:
        raise LedgerError(f"ledger {ledger}: holds no answer; restore it")
    return total
