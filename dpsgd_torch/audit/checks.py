"""Exact tests of what a run claims of its noise and its draws, corrected for their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import ArrayLike, NDArray

FALSE_ALARM = 1e-6
"""Chance that one check of an honest run fails."""


@dataclass(frozen=True)
class Check:
    """One claim, and the chance of what was seen if it holds; ``found`` says what was."""

    claim: str
    p_value: float
    found: str

    @property
    def passed(self) -> bool:
        return self.p_value >= FALSE_ALARM

    def __str__(self) -> str:
        verdict = "holds" if self.passed else "FAILS"
        return f"{verdict}: {self.claim} ({self.found}; p = {self.p_value:.2g})"


def least(p_values: ArrayLike) -> float:
    """The least of several p-values, corrected for their number [Bonferroni].

    >>> least([0.5, 0.01])
    0.02
    """
    values = np.atleast_1d(np.asarray(p_values, float))
    return float(min(1.0, values.min() * values.size)) if values.size else 1.0


def two_sided(lower: Any, upper: Any) -> NDArray[np.float64]:
    """The p-value of both tails together."""
    return np.minimum(1.0, 2 * np.minimum(lower, upper))


def noise_energy(energies: ArrayLike, values: ArrayLike) -> Check:
    """Each step's noise has its planned deviation: χ² of its values over it, all steps."""
    energies, values = np.asarray(energies, float), np.asarray(values, float)
    chi2 = scipy.stats.chi2
    each = two_sided(chi2.cdf(energies, values), chi2.sf(energies, values))
    total = two_sided(chi2.cdf(energies.sum(), values.sum()), chi2.sf(energies.sum(), values.sum()))
    share = np.sqrt(energies.sum() / max(values.sum(), 1.0))
    return Check(
        "noise has the deviation that is charged, in every step",
        least([least(each), float(total)]),
        f"{share:.4f} of it over all steps",
    )


def noise_fresh(correlations: ArrayLike, values: ArrayLike) -> Check:
    """No step's noise is an earlier one's: correlation r of n values, r² ~ Beta(1/2, (n − 1)/2)."""
    r, n = np.asarray(correlations, float), np.asarray(values, float)
    each = scipy.stats.beta.sf(np.minimum(r * r, 1.0), 0.5, np.maximum(n - 1, 1) / 2)
    most = float(np.abs(r).max()) if r.size else 0.0
    return Check("each step's noise is drawn anew", least(each), f"correlation at most {most:.3f}")


def batch_sizes(sizes: ArrayLike, records: int, rate: float) -> Check:
    """Sizes are binomial: none too far out, not all too near, and their sum right."""
    sizes = np.asarray(sizes)
    law = scipy.stats.binom(records, rate)
    each = two_sided(law.cdf(sizes), law.sf(sizes - 1))
    within = float(law.cdf(sizes.max()) - law.cdf(sizes.min() - 1)) ** sizes.size
    total = scipy.stats.binom(records * sizes.size, rate)
    whole = two_sided(total.cdf(sizes.sum()), total.sf(sizes.sum() - 1))
    return Check(
        "batches are as large as Poisson samples",
        least([least(each), within, float(whole)]),
        f"{sizes.min()} to {sizes.max()}, {sizes.mean():.1f} in the mean of {records * rate:.1f}",
    )


def equal_rates(counts: ArrayLike, steps: int, rate: float) -> Check:
    """How often each record joined is binomial, of none too often or too rarely."""
    counts = np.asarray(counts)
    law = scipy.stats.binom(steps, rate)
    each = two_sided(law.cdf(counts), law.sf(counts - 1))
    return Check(
        "every record joins at the same rate",
        least(each),
        f"{counts.min():g} to {counts.max():g} of {steps} batches",
    )


def overlaps(common: ArrayLike, sizes: ArrayLike, rate: float) -> Check:
    """Who is in a batch does not depend on the batch before: its part of it is binomial."""
    common, sizes = np.asarray(common), np.asarray(sizes)
    law = scipy.stats.binom
    each = two_sided(law.cdf(common, sizes, rate), law.sf(common - 1, sizes, rate))
    expected = float((sizes * rate).sum())
    return Check(
        "batches are drawn independently",
        least(each),
        f"neighbours share {int(common.sum())} records, {expected:.1f} expected",
    )


def joined_apart(together: ArrayLike, pairs: ArrayLike, rate: float) -> Check:
    """Records that lie where processes would split them join apart: pairs are binomial of q²."""
    together, pairs = np.asarray(together), np.asarray(pairs)
    law = scipy.stats.binom(pairs, rate * rate)
    each = two_sided(law.cdf(together), law.sf(together - 1))
    return Check(
        "records join independently of one another",
        least(each),
        f"{int(together.sum())} pairs together, {float((pairs * rate * rate).sum()):.1f} expected",
    )


def noise_apart(correlations: ArrayLike, values: ArrayLike) -> Check:
    """Within a step no part of the noise is another's, as where processes share a seed."""
    found = noise_fresh(correlations, values)
    return Check("every value's noise is its own", found.p_value, found.found)


def canary_height(off: float, spread: float, count: float) -> Check:
    """A canary shows as one clip norm: the sum of what it is off by is normal."""
    z = off / spread if spread else 0.0
    mean = 1 + off / count if count else 1.0
    return Check(
        "a record moves the sum by the clip norm",
        float(2 * scipy.stats.norm.sf(abs(z))),
        f"{mean:.3f} of it in the mean",
    )
