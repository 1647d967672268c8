"""Labels randomized once, before anything looks at them; inputs are public.

Every label is told as it is with probability e^ε / (e^ε + k − 1), else as another of the k, evenly
[Warner 1965; Kairouz, Oh, Viswanath 2016, Section 4.1]. What is trained on the answers is private
at that ε, however long it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import opendp.prelude as dp
import torch
from numpy.typing import NDArray
from torch.nn import functional

from accountant import Event, RandomizedResponse, Relation
from accountant.errors import check
from dpsgd_torch.mechanisms.laplace import refuse_dearer

dp.enable_features("contrib")


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
        """How likely a label is told as it is."""
        return 1 / (1 + (self.classes - 1) * math.exp(-self.epsilon))

    @property
    def event(self) -> Event:
        k = self.classes
        return RandomizedResponse(
            noise_parameter=(1 - self.told) * k / (k - 1),
            categories=k,
            relation=Relation.LABEL_CHANGE,
        )

    def draw(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) labels 0 … k − 1 → (n,) answers.

        Raises:
            GuaranteeBroken: OpenDP's own price of an answer is above ε.
        """
        answer = dp.m.make_randomized_response(list(range(self.classes)), self.told)
        refuse_dearer(answer.map(1), self.epsilon, "randomized response")
        return np.array([answer(int(label)) for label in labels], dtype=np.int64)

    def debiased(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """(logits, answers) → (n,), in the mean over answers the cross entropy of the true labels.

        ℓ(o, y) − τ Σ_j ℓ(o, j), over π − τ, with π the chance of the truth and τ of each other
        label [Natarajan et al. 2013, Lemma 1; Patrini et al. 2017, Theorem 1].
        """
        other = (1 - self.told) / (self.classes - 1)

        def loss(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
            each = -functional.log_softmax(outputs, dim=1)
            own = each.gather(1, answers[:, None])[:, 0]
            return (own - other * each.sum(dim=1)) / (self.told - other)

        return loss
