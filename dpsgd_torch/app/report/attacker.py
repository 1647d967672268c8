"""What an attacker gets, for the page: figures of the certified curve, and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accountant import Event, TradeOff, risk_of
from accountant.auditing.operating import OperatingPoint
from accountant.risk.measures import Risk
from accountant.statement import round_up
from dpsgd_torch.audit.picture import roc

_MOST_EVENTS = 8  # distinct noises that are priced one by one: more are told by so many above
_DECADES = 4


@dataclass(frozen=True)
class Attacker:
    """Upper bounds on any attacker, an audit's points, and both in one picture."""

    risk: Risk
    picture: str

    @classmethod
    def of(
        cls, events: Iterable[tuple[Event, int]], points: Sequence[OperatingPoint] = ()
    ) -> Attacker:
        """Of all that was released."""
        curve = TradeOff(events, most_events=_MOST_EVENTS)
        return cls(risk_of(curve), roc(_Drawn(curve), points, decades=_DECADES))

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What is bounded, and by what."""
        risk = self.risk
        told = [
            ("attacker’s advantage: true less false positives", percent(risk.advantage)),
            ("right guesses who is a member, of a prior of ½", percent(risk.accuracy)),
        ]
        for at in risk.membership:
            told.append(
                (
                    f"true positives at {100 * at.false_positive_rate:g} % false positives; a "
                    f"positive answer raises a prior of ½ to {percent(at.posterior)}",
                    percent(at.true_positive_rate),
                )
            )
        for guess in risk.guesses:
            told.append(
                (
                    "reconstruction: a secret guessed without the release "
                    f"{100 * guess.before:g}\u00a0% of the time, and with it",
                    percent(guess.after),
                )
            )
        return told


class _Drawn:
    """A curve that is drawn by the lines that the figures needed: above it everywhere."""

    def __init__(self, curve: TradeOff) -> None:
        self.true_positives = curve.drawn
        self.delta = curve.delta


def percent(value: float) -> str:
    """Rounded up.

    >>> percent(0.12345678)
    '12.346 %'
    """
    return f"{round_up(100 * value, 3)} %"
