"""What correlated noise costs: as one Gaussian release, or under cyclic Poisson sampling.

In both, independent noise w of the release C G + w has the deviation

    noise_multiplier × sensitivity(participation) × clip norm,

where ``sensitivity`` is ``Factor.sensitivity`` of the pattern named here.
"""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import InvalidValue, UnsupportedEvent, check, check_count
from accountant.events import Event, Gaussian, NoCost, PoissonSampled, Relation
from accountant.factorization.factor import Factor
from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Participation,
    Reshuffled,
    SinglePass,
)


@dataclass(frozen=True, kw_only=True)
class Unsampled:
    """Correlated noise over passes without sampling: the whole run is one Gaussian release.

    * Rows of C G + w, for gradients that depend on earlier rows, are one Gaussian mechanism of
      sensitivity ``Factor.sensitivity(participation)`` × clip norm: what a record moves, given the
      rows so far, has at most that norm on every path [Denisov et al. 2022, Theorem 2.1; Smith,
      Thakurta 2022, Theorem 1.1]. A run that stops early has released less.
    * REPLACE_ONE (default): a record's steps are settled by its place in the data set (in order,
      or shuffled, for which nothing is claimed), and neighbours differ in what stands at one
      place. One of its clipped gradients becomes another, up to twice the norm away, so that the
      noise counts for half, as for any shuffled pass.
    * ADD_OR_REMOVE_ONE: only where a record's steps are public and its own: settled by what does
      not depend on other records (its day of arrival, a hash of its key), so that a record that
      is missing leaves a hole and moves no other between batches. Batches then vary in size, and
      are divided by the declared one.

    >>> run = Unsampled(participation=FixedEpochs(steps_per_epoch=200))
    >>> run.events(noise_multiplier=4.0, steps=2000)
    [(Gaussian(noise_multiplier=2.0, relation=<Relation.REPLACE_ONE: 'replace_one'>), 1)]
    """

    participation: Participation
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        _check_relation(self.relation)

    def check(self, factor: Factor) -> None:
        """Any factor will do: its sensitivity is computed for the participation."""

    def charge(self, step: int, noise_multiplier: float) -> Event:
        """What step ``step`` (from 0) is charged: the first one pays for the run."""
        if step:
            return NoCost(relation=self.relation)
        return Gaussian(
            noise_multiplier=noise_multiplier / _shift(self.relation), relation=self.relation
        )

    def events(self, noise_multiplier: float, steps: int) -> list[tuple[Event, int]]:
        """The run's (event, count) pairs."""
        check_count("steps", steps)
        return [(self.charge(0, noise_multiplier), 1)] if steps else []


@dataclass(frozen=True, kw_only=True)
class CyclicPoisson:
    """Correlated noise of b bands amplified by cyclic Poisson sampling.

    * Each record belongs to one of ``parts`` parts, drawn for it (or hashed from its own key)
      independently of every other record and of how many there are; parts may be known.
    * Step t samples part t mod parts alone: each of its records joins independently with
      probability parts × batch size / n, so that batches have the declared size in expectation.
    * C has at most ``parts`` bands. Noise of the release has the deviation noise_multiplier ×
      norm of C's first column × clip norm.
    * Under REPLACE_ONE the part goes with the place in the data set, not with its content, so
      that both records are of the same part; the noise counts for half.
    * A person's records must be of one part for a group to be priced as a sampled group.

    The run costs no more than ⌈steps / parts⌉ releases of a Poisson-sampled Gaussian at that rate
    [Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", Theorem 4]. Proof: let
    x be the record, in part r, and condition on parts and on every other record's coins, which
    do not depend on whether x is there (the divergences are jointly convex). x can join at steps
    t_1 = r, t_2 = r + parts, … alone. What it adds at t_i, a clipped g(x) that depends on earlier
    outputs, stands in rows t_i … t_i + bands − 1 of C G, as c ⊗ g(x); as bands ≤ parts these end
    before t_{i+1}. So cut the output into blocks [t_i, t_{i+1}), the last one ended early. Rows
    before t_1 do not depend on x. Given all rows before t_i, whatever x did before adds nothing
    from row t_i on. In the block, row s is Gaussian around m_s, a function of earlier rows and
    of the other records, and m_s + c_{s−t_i} g(x) if x joined, where g(x) is fixed by the rows
    before t_i. Subtracting m_s row by row, from the first on, is a bijection of the block given
    what precedes it, the same one in both worlds. It leaves N(0, s²I) without x, and with x the
    mixture (1 − q) N(0, s²I) + q N(c ⊗ g(x), s²I), where q is the rate. As ‖c ⊗ g(x)‖ ≤ ‖c‖ C,
    and less in a block that ended early, the pair is dominated, in either order, by that of the
    Poisson-sampled Gaussian of s = σ ‖c‖ C; so are the blocks together, by adaptive composition
    of dominating pairs [Zhu, Dong, Wang 2022, Theorem 10]. Part 0 has the most blocks,
    ⌈steps / parts⌉. What training adds, C⁻¹ w, and the parameters are functions of the output.

    >>> sampled = CyclicPoisson(dataset_size=60_000, batch_size=600, parts=16)
    >>> sampled.events(noise_multiplier=2.0, steps=1999)
    [(PoissonSampled(sampling_rate=0.16, event=Gaussian(noise_multiplier=2.0)), 125)]
    """

    dataset_size: int
    batch_size: int
    parts: int
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        n, batch, parts = self.dataset_size, self.batch_size, self.parts
        check(n >= 1 and n % 1 == 0, "dataset_size", n, "must be a whole number ≥ 1")
        check(parts >= 1 and parts % 1 == 0, "parts", parts, "must be a whole number ≥ 1")
        check(batch >= 1, "batch_size", batch, "must be at least 1")
        check(
            parts * batch <= n,
            "parts × batch_size",
            parts * batch,
            f"must be at most n = {n}: a part holds n / parts records",
            f"take at most {max(n // batch, 1)} parts and bands, or smaller batches",
        )
        _check_relation(self.relation)

    @property
    def sampling_rate(self) -> float:
        """q = parts × batch size / n, of the records of one part."""
        return self.parts * self.batch_size / self.dataset_size

    @property
    def participation(self) -> Participation:
        """What the noise of one release is scaled to: a record once, within ``parts`` steps."""
        return SinglePass()

    def check(self, factor: Factor) -> None:
        """Refuse a factor whose columns outlast a cycle.

        >>> from accountant.factorization.square_roots import banded_sqrt
        >>> CyclicPoisson(dataset_size=100, batch_size=5, parts=4).check(banded_sqrt(20, 5))
        Traceback (most recent call last):
        accountant.errors.InvalidValue: bands = 5: must be at most parts = 4, or what a record \
adds at one step reaches into its next; take 5 parts
        """
        if factor.bands > self.parts:
            raise InvalidValue(
                f"bands = {factor.bands}: must be at most parts = {self.parts}, or what a record "
                f"adds at one step reaches into its next; take {factor.bands} parts"
            )

    def charge(self, step: int, noise_multiplier: float) -> Event:
        """What step ``step`` (from 0) is charged: the first of a cycle pays for all of it."""
        if step % self.parts:
            return NoCost(relation=self.relation)
        noise = noise_multiplier / _shift(self.relation)
        return PoissonSampled(
            sampling_rate=self.sampling_rate,
            event=Gaussian(noise_multiplier=noise, relation=self.relation),
        )

    def events(self, noise_multiplier: float, steps: int) -> list[tuple[Event, int]]:
        """The run's (event, count) pairs: a cycle that has begun counts as a whole one."""
        check_count("steps", steps)
        cycles = -(-steps // self.parts)
        return [(self.charge(0, noise_multiplier), cycles)] if cycles else []


Scheme = Unsampled | CyclicPoisson


def _shift(relation: Relation) -> int:
    """How far one contribution moves, in clip norms."""
    return 2 if relation is Relation.REPLACE_ONE else 1


def _check_relation(relation: Relation) -> None:
    if relation is Relation.LABEL_CHANGE:
        raise UnsupportedEvent(
            "relation = label_change: correlated noise on clipped gradients is analysed for "
            "add_or_remove_one and replace_one; choose one of them"
        )


__all__ = [
    "CyclicPoisson",
    "FixedEpochs",
    "MinSeparation",
    "Participation",
    "Reshuffled",
    "Scheme",
    "SinglePass",
    "Unsampled",
]
