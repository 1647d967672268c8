"""What a run promised, and what may be said of its ε: checked against its ledger."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accountant import LedgerError, Relation, exact
from accountant.ledger.recorded import read_events
from accountant.statement import round_up
from dpsgd_torch.errors import RunError, shown

ADVICE = "restore it, or export with the version that the run was trained with"
_ROUNDING = 1e-9  # relative: of ε priced anew, in another order
_NONE = "none: trained without differential privacy"

Promised = Literal["records", "labels", "nothing", "unstated"]


@dataclass(frozen=True)
class Promise:
    """To whom a run promised something; ``asked_in`` is the file that says so, beside privacy.json.

    No relation: the run was not private. ``again`` writes privacy.json anew; ``always_a_ledger``:
    not even the best run of a search, whose ledger is the search's, may come without one.
    """

    asked_in: str
    relation: Relation | None
    unit: str = ""
    again: str = "python -m dpsgd_torch.train --resume"
    always_a_ledger: bool = False

    @property
    def labels_only(self) -> bool:
        return self.relation is Relation.LABEL_CHANGE

    @property
    def to(self) -> Promised:
        if self.labels_only:
            return "labels"
        return "records" if self.relation else "nothing"


def privacy_told(data: Any, promise: Promise, folder: Path) -> dict[str, str]:
    """What may be said of ε: of privacy.json, if it fits what was asked for and the ledger.

    Raises:
        RunError, LedgerError: the three are not of one run, or ε is less than the ledger's.
    """
    where, labels_only = folder / "privacy.json", promise.labels_only
    if not isinstance(data, dict):
        raise RunError(f"{where}: holds no object; {ADVICE}")
    if (data.get("private") is False) == (promise.relation is not None):
        raise RunError(
            f"{where}: and {promise.asked_in} disagree on whether the run was private; {ADVICE}"
        )
    if promise.relation is None:
        return {"epsilon": _NONE}
    epsilon, delta = data.get("epsilon"), data.get("delta")
    bound, chance = _number(math.inf if epsilon is None else epsilon), _number(delta)
    if not bound >= 0 or not (chance == 0 if labels_only else 0 < chance < 1):
        raise RunError(
            f"{where}: epsilon = {shown(epsilon)}, delta = {shown(delta)}: bound nothing; {ADVICE}"
        )
    for name, value in (("relation", promise.relation.value), ("unit", promise.unit)):
        if data.get(name) != value:
            raise RunError(
                f"{where}: {name} = {shown(data.get(name))}: {promise.asked_in} asks for {value}; "
                f"{ADVICE}"
            )
    if promise.always_a_ledger or "trials" not in data:
        _refuse_less(bound, chance, folder / "ledger.sqlite", where, promise)
    return {
        "epsilon": "infinite" if math.isinf(bound) else f"at most {round_up(bound)}",
        "delta": repr(chance),
        "relation": f"{promise.relation.value}, the unit of privacy is {_one(promise.unit)}",
    }


def _number(value: object) -> float:
    """NaN for what is none."""
    return float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]


def _one(unit: str) -> str:
    return unit if unit.startswith("one ") else f"one {unit}"


def _refuse_less(epsilon: float, delta: float, ledger: Path, where: Path, promise: Promise) -> None:
    """Refuse an ε below what the ledger's charges cost."""
    if not ledger.is_file():
        raise RunError(f"{ledger}: is gone, and without it nobody knows ε; restore it")
    try:
        events = read_events(ledger)
    except sqlite3.Error as error:
        raise LedgerError(f"ledger {ledger}: cannot be read ({error}); restore it") from error
    if promise.labels_only:
        from dpsgd_torch.mechanisms.randomized_response import label_epsilon

        least = label_epsilon(events, ledger)
    else:
        priced = exact()
        priced.compose_all(events)
        least = priced.epsilon(delta).lower
    if epsilon < least * (1 - _ROUNDING):
        raise RunError(
            f"{where}: epsilon = {epsilon!r}: the ledger's charges cost {least!r} at least; "
            f"restore it: {promise.again} writes it anew"
        )
