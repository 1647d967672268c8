"""What a validation score decides: when to stop, when to slow down, which epoch to keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accountant.errors import check


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Pure functions of the scores so far, so that a resumed run decides as before.

    Args:
        patience: epochs without a new best after which training stops; None never stops.
        plateau: epochs without a new best after which the learning rate is multiplied by
            ``plateau_factor``, and again after as many more; None leaves it.
        plateau_factor: between 0 and 1.
        keep_best: end with the weights of the best epoch instead of the last.

    >>> watch = EarlyStopping(patience=2, plateau=1, plateau_factor=0.1)
    >>> scores = [0.5, 0.4, 0.45]
    >>> watch.best(scores), watch.rate_factor(scores), watch.stops(scores)
    (1, 0.1, False)
    >>> watch.stops([*scores, 0.42])
    True
    """

    patience: int | None = None
    plateau: int | None = None
    plateau_factor: float = 0.1
    keep_best: bool = False

    def __post_init__(self) -> None:
        for name in ("patience", "plateau"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, value, "must be at least 1 epoch")
        factor = self.plateau_factor
        check(0 < factor < 1, "plateau_factor", factor, "must lie between 0 and 1")

    def best(self, scores: Sequence[float]) -> int:
        """The epoch, counted from 0, of the lowest score; the first of equals."""
        return min(range(len(scores)), key=scores.__getitem__)

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether training ends here."""
        return self.patience is not None and self._waited(scores) >= self.patience

    def rate_factor(self, scores: Sequence[float]) -> float:
        """What the learning rate is multiplied by from here on [Keras, ReduceLROnPlateau]."""
        factor, waited, best = 1.0, 0, math.nan
        for epoch, score in enumerate(scores if self.plateau else ()):
            if epoch == 0 or score < best:
                waited, best = 0, score
            else:
                waited += 1
            if waited == self.plateau:
                factor, waited = factor * self.plateau_factor, 0
        return factor

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def _waited(self, scores: Sequence[float]) -> int:
        return len(scores) - 1 - self.best(scores) if scores else 0
