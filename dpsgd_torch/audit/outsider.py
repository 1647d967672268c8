"""What somebody who sees noisy sums and knows the canaries alone makes of them, step by step."""

from __future__ import annotations

import numpy as np

from accountant.auditing.seen_outside import HEIGHTS, SeenOutside, stray, tilt
from dpsgd_torch.audit.guessed import Coins, Scores, likelihood_ratio
from dpsgd_torch.data.units import Indices


class Outsider:
    """Scores for the coins, and sums for the bound of the mechanism as it is seen from outside.

    Everything is computed from noisy sums and from what canaries drew, apart from any record: ε
    covers it.
    """

    def __init__(
        self, count: int, steps: int, *, rate: float, noise_multiplier: float, confidence: float
    ) -> None:
        self.rate, self.noise_multiplier = rate, noise_multiplier
        self.scores = np.zeros(count)
        # values, energy, joined, their sum, the sum of all that are in, stray apart, steps
        self._totals, self._stray = np.zeros(7), np.zeros(len(HEIGHTS))
        self._tilt = 0.0
        if 0 < rate < 1 and noise_multiplier > 0:
            self._tilt = tilt(count * steps / 2, rate, noise_multiplier, confidence)

    def see(self, told: Scores, joined: Indices, coins: Coins, noise_multiplier: float) -> None:
        """Take what one noisy sum showed at each canary's coordinate, in clip norms."""
        self.scores += likelihood_ratio(told, noise_multiplier, self.rate)
        apart = np.ones(len(coins), bool)
        apart[joined] = False
        quiet, inside, loud = told[apart], told[apart & coins], told[joined]
        strayed = float(stray(self._tilt * inside, self.rate).sum()) if self._tilt else 0.0
        found = (
            quiet.size,
            float(quiet @ quiet),
            loud.size,
            float(loud.sum()),
            float(loud.sum() + inside.sum()),
            strayed,
            1,
        )
        self._totals += np.array(found, float)
        if self._tilt:
            self._stray += stray(self._tilt * (loud[:, None] - HEIGHTS), self.rate).sum(0)

    def seen(self, joins: int, chances: int) -> SeenOutside | None:
        """All of it; None where steps are missing, as of a run begun by an older version."""
        values, energy, joined, joined_sum, all_sum, apart, steps = self._totals
        if not self._tilt or steps * len(self.scores) != chances:
            return None
        return SeenOutside(
            values=int(values),
            energy=float(energy),
            joins=joins,
            chances=chances,
            rate=self.rate,
            joined=int(joined),
            joined_sum=float(joined_sum),
            all_sum=float(all_sum),
            tilt=self._tilt,
            stray_apart=float(apart),
            stray_joined=self._stray,
            steps=int(steps),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """What checkpoints keep, beside the scores."""
        return {"seen": np.append(self._totals, self._stray)}

    def load(self, scores: Scores, arrays: dict[str, np.ndarray]) -> None:
        """What a checkpoint kept; older ones have scores, or nothing."""
        self.scores = scores
        if "seen" in arrays:
            self._totals, self._stray = arrays["seen"][:7], arrays["seen"][7:]
