"""What a run's folder says of its model's numbers and of ε, checked: the folder may be anybody's.

All of it goes into paths, C files and metadata. What is known otherwise (shapes, ranges, labels of
public data sets) must be that; what is not (gestures' names) must be plain text.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from accountant import LedgerError, PrivacyError, Relation, exact
from accountant.recorded import read_events
from accountant.statement import round_up
from dpsgd_torch.config import RunConfig
from dpsgd_torch.errors import RunError
from dpsgd_torch.labels import label_epsilon
from dpsgd_torch.stored_config import shown
from dpsgd_torch.tasks.gestures import input_range_of
from dpsgd_torch.tasks.registry import public_inputs

_ADVICE = "restore it, or export with the version that the run was trained with"
_UNITS = ("record",)  # tasks that are exported have no ids
_LONGEST = 200  # characters of a name
_ROUNDING = 1e-9  # relative: of ε priced anew, in another order
_NONE = "none: trained without differential privacy"


@dataclass(frozen=True)
class Facts:
    """What task.json says, and what holds of it for that configuration."""

    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_range: tuple[float, float]
    output: str
    synthetic: bool

    @classmethod
    def of(cls, data: Any, config: RunConfig, where: Path) -> Facts:
        """Those in ``data``, as the JSON file ``where`` holds it.

        Raises:
            RunError: something that no run of ``config`` would have left.
        """
        gestures = config.dataset == "gestures"
        squared = gestures and config.loss == "mean-squared"
        low, high = input_range_of(config.loss) if gestures else (0.0, 1.0)
        expected: dict[str, Any] = {
            "input_shape": list(public_inputs(config)(1).shape[1:]),
            "input_range": [low, high],
            "output": "probabilities" if squared else "logits",
        }
        if not isinstance(data, dict):
            raise RunError(f"{where}: holds no object; {_ADVICE}")
        for name, value in expected.items():
            if data.get(name) != value:
                raise RunError(
                    f"{where}: {name} = {shown(data.get(name))}: must be {value} for "
                    f"{config.preset}; {_ADVICE}"
                )
        labels, synthetic = data.get("labels"), data.get("synthetic")
        if not (isinstance(labels, list) and len(labels) > 1 and all(map(is_plain, labels))):
            raise RunError(
                f"{where}: labels = {shown(labels)}: must be names of printable characters; "
                f"{_ADVICE}"
            )
        if len(set(labels)) < len(labels):
            raise RunError(f"{where}: labels = {shown(labels)}: must differ; {_ADVICE}")
        if not isinstance(synthetic, bool) or (synthetic and not gestures):
            raise RunError(
                f"{where}: synthetic = {shown(synthetic)}: must be true or false, and true for "
                f"made-up data alone; {_ADVICE}"
            )
        shape = tuple(public_inputs(config)(1).shape[1:])
        return cls(tuple(labels), shape, (low, high), str(expected["output"]), synthetic)


def is_plain(name: object) -> bool:
    """Whether a name can stand in a file: printable, of some length, and text in UTF-8.

    >>> is_plain("punch"), is_plain("a\\nb"), is_plain("\\udce9"), is_plain(7)
    (True, False, False, False)
    """
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST


def privacy_told(data: Any, config: RunConfig, folder: Path, where: Path) -> dict[str, str]:
    """What may be said of ε: of privacy.json, if it fits config.json and the ledger.

    Raises:
        RunError, LedgerError: the three are not of one run, or ε is less than the ledger's.
    """
    if not isinstance(data, dict):
        raise RunError(f"{where}: holds no object; {_ADVICE}")
    labels_only = config.label_epsilon is not None
    if (data.get("private") is False) == (config.dp or labels_only):
        raise RunError(f"{where}: and config.json disagree on whether the run was private")
    if not (config.dp or labels_only):
        return {"epsilon": _NONE}
    epsilon, delta = data.get("epsilon"), data.get("delta")
    relation = Relation.LABEL_CHANGE if labels_only else Relation.ADD_OR_REMOVE_ONE
    if config.privacy_unit not in _UNITS:
        raise RunError(
            f"{folder / 'config.json'}: privacy_unit = {shown(config.privacy_unit)}: the data of "
            f"{config.preset} has no such ids; {_ADVICE}"
        )
    unit = "one label" if labels_only else config.privacy_unit
    bound, chance = _number(math.inf if epsilon is None else epsilon), _number(delta)
    if not bound >= 0 or not (chance == 0 if labels_only else 0 < chance < 1):
        raise RunError(
            f"{where}: epsilon = {shown(epsilon)}, delta = {shown(delta)}: bound nothing; {_ADVICE}"
        )
    for name, value in (("relation", relation.value), ("unit", unit)):
        if data.get(name) != value:
            raise RunError(
                f"{where}: {name} = {shown(data.get(name))}: config.json asks for {value}; "
                f"{_ADVICE}"
            )
    if "trials" not in data:  # the best run of a search has none of its own
        _refuse_less(bound, chance, folder / "ledger.sqlite", where, labels_only)
    return {
        "epsilon": "infinite" if math.isinf(bound) else f"at most {round_up(bound)}",
        "delta": repr(chance),
        "relation": f"{relation.value}, the unit of privacy is {_one(unit)}",
    }


def _number(value: object) -> float:
    """NaN for what is none."""
    return float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]


def _one(unit: str) -> str:
    return unit if unit.startswith("one ") else f"one {unit}"


def _refuse_less(
    epsilon: float, delta: float, ledger: Path, where: Path, labels_only: bool
) -> None:
    """Refuse an ε below what the ledger's charges cost."""
    if not ledger.is_file():
        raise RunError(f"{ledger}: is gone, and without it nobody knows ε; restore it")
    try:
        events = read_events(ledger)
    except sqlite3.Error as error:
        raise LedgerError(f"ledger {ledger}: cannot be read ({error}); restore it") from error
    if labels_only:
        least = label_epsilon(events, ledger)
    else:
        priced = exact()
        for event, count in events:
            priced.compose(event, count)
        least = priced.epsilon(delta).lower
    if epsilon < least * (1 - _ROUNDING):
        raise RunError(
            f"{where}: epsilon = {epsilon!r}: the ledger's charges cost {least!r} at least; "
            "restore it: python -m dpsgd_torch.train --resume writes it anew"
        )


def weights_fit(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    """Load them; "" or why they are not the model's."""
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, PrivacyError) as error:
        return str(error).splitlines()[0]
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    return f"{bad[0]} holds what is no number" if bad else ""
