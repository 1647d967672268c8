"""Operational risk of a run: membership, attribute inference and reconstruction, from one curve.

All are read off the trade-off curve f of the run, and all bound every attacker from above, who
sees all that was released and knows every other record [Kulynych et al. 2024, 2025].

* **Membership**: telling the data set with the record from the neighbour without it (or with
  another in its place, or another label: the relation says which). Advantage is the most of
  TPR − FPR, the posterior what a positive test makes of a prior, accuracy how often a guess is
  right.
* **Reconstruction and attributes**: Z, the record or what is secret of it, is drawn from what the
  attacker believes, and counts as found when a guess comes near enough. If no guess made without
  the release is near with more than probability κ, none made with it is with more than 1 − f(κ)
  [Hayes, Mahloujifar, Balle 2023]: against neighbours that do not depend on Z the guess is a test
  of false-positive rate at most κ on average, and 1 − f is concave. A value among k alike has
  κ = 1/k; one of a skewed prior, the largest of its probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from accountant.errors import check
from accountant.events import Event
from accountant.statement import RELATION_WORDS, unit_of_privacy
from accountant.tradeoff import USUAL_RATES, TradeOff

USUAL_CHANCES = (0.5, 0.1, 0.01, 1e-4)


@dataclass(frozen=True)
class AtRate:
    """What an attacker reaches whose test errs on that many who are no members."""

    false_positive_rate: float
    true_positive_rate: float
    posterior: float
    """Of membership after a positive test, from the report's prior."""


@dataclass(frozen=True)
class Guess:
    """A secret guessed with probability ``before`` without the release, ``after`` with it."""

    before: float
    after: float


@dataclass(frozen=True)
class Risk:
    """Upper bounds on what any attacker gains from all that was released."""

    relation: str
    between: str
    """The neighbours told apart, in words."""
    prior: float
    advantage: float
    accuracy: float
    """Of a guess who is a member, from that prior."""
    membership: tuple[AtRate, ...]
    guesses: tuple[Guess, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return asdict(self)


def risk_of(
    events: Iterable[tuple[Event, int]] | TradeOff,
    *,
    false_positive_rates: Iterable[float] = USUAL_RATES,
    prior: float = 0.5,
    chances: Iterable[float] = USUAL_CHANCES,
    group_size: int = 1,
) -> Risk:
    """What any attacker gains: ε read as risk.

    Args:
        events: (event, count) pairs of all that was released, as a ledger has them; or the
            trade-off curve of these.
        false_positive_rates: of membership tests, each in (0, 1).
        prior: probability of membership before the release, in (0, 1).
        chances: to guess a secret without the release, each in (0, 1).
        group_size: records a person may hold, where the events are told for such a group.

    >>> from accountant import Gaussian
    >>> found = risk_of([(Gaussian(noise_multiplier=1.0), 1)], false_positive_rates=[0.01])
    >>> round(found.advantage, 4), round(found.accuracy, 4), round(found.guesses[1].after, 4)
    (0.3829, 0.6915, 0.3891)
    >>> found.between
    'data sets that differ by adding or removing one record'
    """
    curve = events if isinstance(events, TradeOff) else TradeOff(events)
    chances = list(chances)
    for chance in chances:
        check(0 < chance < 1, "chance", chance, "must lie in (0, 1)")
    told = RELATION_WORDS[curve.relation]
    membership = tuple(
        AtRate(rate, curve.true_positives(rate), curve.posterior(prior, rate))
        for rate in false_positive_rates
    )
    return Risk(
        relation=curve.relation.value,
        between=told.replace("one record", unit_of_privacy(curve.events, group_size)),
        prior=prior,
        advantage=curve.advantage,
        accuracy=curve.accuracy(prior),
        membership=membership,
        guesses=tuple(Guess(chance, curve.true_positives(chance)) for chance in chances),
    )
