"""What clipping and what noise took from the accuracy of runs on made-up data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("private", "no noise", "no noise, no clip")


@dataclass(frozen=True)
class Explained:
    """Test accuracies of one plan on made-up data: as it is, without noise, and without clip, too.

    ``reached`` has an accuracy for each seed under each of ``KINDS``; ``rows`` were trained on,
    in batches and under noise that are ``share`` of the run's, so that the noise in the mean
    gradient is the run's.
    """

    rows: int
    test_rows: int
    share: float
    reached: Mapping[str, tuple[float, ...]]

    def mean(self, kind: str) -> float:
        return float(np.mean(self.reached[kind]))

    @property
    def noise(self) -> float:
        """Accuracy that the noise took: of the clipped runs' less of the private ones'."""
        return self.mean("no noise") - self.mean("private")

    @property
    def clip(self) -> float:
        """Accuracy that the clip took: of the unclipped runs' less of the clipped ones'."""
        return self.mean("no noise, no clip") - self.mean("no noise")

    @property
    def spread(self) -> float:
        """Largest distance between two seeds of one kind: parts below it show nothing."""
        return max(max(each) - min(each) for each in self.reached.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "test_rows": self.test_rows,
            "share": self.share,
            "reached": {kind: list(self.reached[kind]) for kind in KINDS},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Explained:
        """What ``to_json`` wrote.

        >>> told = Explained(9, 5, 0.5, {kind: (0.5, 0.75) for kind in KINDS})
        >>> Explained.from_json(told.to_json()) == told
        True
        """
        reached = {kind: tuple(map(float, data["reached"][kind])) for kind in KINDS}
        return cls(int(data["rows"]), int(data["test_rows"]), float(data["share"]), reached)
