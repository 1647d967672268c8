"""The answers of ``risk``, and of ``noise`` for a bound on an attacker."""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING, Any

from accountant.calibration import BudgetNotReached
from accountant.cli.asked import events_of, print_json, recorded, steps_of, warn
from accountant.dpsgd import Sampler
from accountant.errors import check, check_delta
from accountant.events import Event
from accountant.groups import for_group
from accountant.statement import round_up

if TYPE_CHECKING:
    from accountant.risk.measures import Risk

_RUN = ("n", "batch_size", "noise_multiplier")
_OF_THE_FILE = {
    **dict.fromkeys((*_RUN, "epochs", "steps", "relation")),
    "microbatch_size": 1,
    "sampler": (Sampler.POISSON, None),
}


def risk(args: argparse.Namespace) -> None:
    """What any attacker gains from a run, or from what was written down."""
    if args.file is None:
        for name in _RUN:
            given = getattr(args, name) is not None
            check(given, name, "None", "must be given", "or name a ledger's FILE")
        timed = args.epochs is not None or args.steps is not None
        check(timed, "steps", "None", "must be given, or epochs", "or name a ledger's FILE")
        events = events_of(args, args.noise_multiplier, steps_of(args))
    else:
        for name, usual in _OF_THE_FILE.items():
            given = getattr(args, name)
            told = given[0].value if name == "sampler" else given
            check(given == usual, name, told, "is what FILE tells", "leave it")
        events = [
            (part, count * times)
            for event, count in recorded(args)
            for part, times in for_group(event, args.group_size)
        ]
    _tell(args, _measured(args, events), {})


def noise_for_risk(args: argparse.Namespace) -> None:
    """The least noise at which an attacker stays below a bound, and what else that means."""
    from accountant.methods import epsilon_by
    from accountant.risk.calibrate import calibrate_noise_to_advantage, calibrate_noise_to_power

    check(args.method == "exact", "method", args.method, "has no trade-off curve", "leave it")
    steps = steps_of(args)
    if args.delta is not None:
        check_delta(args.delta)

    def run(sigma: float) -> list[tuple[Event, int]]:
        return events_of(args, sigma, steps)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BudgetNotReached)
        if args.advantage is not None:
            found = calibrate_noise_to_advantage(args.advantage, run)
        else:
            tpr, fpr = args.tpr_at_fpr
            found = calibrate_noise_to_power(tpr, fpr, run)
    for warning in caught:
        warn(str(warning.message))
    fields: dict[str, Any] = {"noise_multiplier": found}
    if args.delta is not None:
        answer = epsilon_by("exact", run(found), args.delta, args.width)
        assert not isinstance(answer, float)
        fields |= {"epsilon": answer.upper, "delta": args.delta}
    _tell(args, _measured(args, run(found)), fields)


def tpr_at_fpr(text: str) -> tuple[float, float]:
    """``0.02@0.001`` as (true-positive rate, false-positive rate)."""
    tpr, at, fpr = text.partition("@")
    if not at:
        raise argparse.ArgumentTypeError(f"{text!r} is not TPR@FPR, such as 0.02@0.001")
    try:
        return float(tpr), float(fpr)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TPR@FPR, such as 0.02@0.001") from None


def _measured(args: argparse.Namespace, events: list[tuple[Event, int]]) -> Risk:
    from accountant.risk.measures import USUAL_CHANCES, risk_of
    from accountant.tradeoff import USUAL_RATES

    rates = list(getattr(args, "fpr", None) or USUAL_RATES)
    if getattr(args, "tpr_at_fpr", None) and args.tpr_at_fpr[1] not in rates:
        rates.append(args.tpr_at_fpr[1])
    return risk_of(
        events,
        false_positive_rates=rates,
        prior=getattr(args, "prior", 0.5),
        chances=getattr(args, "chance", None) or USUAL_CHANCES,
        group_size=args.group_size,
    )


def _tell(args: argparse.Namespace, found: Risk, fields: dict[str, Any]) -> None:
    if args.json:
        print_json({**fields, **found.to_json()})
        return
    if "noise_multiplier" in fields:
        print(f"noise_multiplier = {round_up(fields['noise_multiplier'], 6)}")
    if "epsilon" in fields:
        print(f"ε = {round_up(fields['epsilon'], 7)} at δ = {fields['delta']:g} (exact)")
    print(f"Telling {found.between} apart,")
    print("no attacker, whatever else is known, reaches more than")
    print(f"  {_percent(found.advantage):>9}  true less false positives (advantage)")
    whose = f"who is a member, from a prior of {found.prior:.6g}"
    print(f"  {_percent(found.accuracy):>9}  right guesses {whose}")
    for row in found.membership:
        seen = f"{100 * row.false_positive_rate:.6g} % false: they are members with probability"
        power, posterior = _percent(row.true_positive_rate), round_up(row.posterior, 3)
        print(f"  {power:>9}  true positives at {seen} {posterior}")
    print(
        "A secret of the record, a value or all of it, is guessed without the release and with it"
    )
    for guess in found.guesses:
        print(f"  {100 * guess.before:>7.6g} %  {_percent(guess.after):>9} of the time at most")


def _percent(value: float) -> str:
    return f"{round_up(100 * value, 3)} %"
