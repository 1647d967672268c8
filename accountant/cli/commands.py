"""What each command of the shell answers; it loads what that command needs."""

from __future__ import annotations

import argparse
import dataclasses
import math
import warnings
from typing import Any

from accountant.bounds import EpsilonBounds, RdpBound
from accountant.calibration import BudgetNotReached, calibrate_noise, calibrate_steps
from accountant.cli.asked import events_of, print_json, recorded, steps_of, warn
from accountant.cli.risk import noise_for_risk
from accountant.dpsgd import Sampler
from accountant.errors import check, check_delta
from accountant.events import Event
from accountant.methods import accountant_of, as_json, epsilon_by
from accountant.pld.accountant import PldAccountant
from accountant.rdp.accountant import COMMON_ORDERS, RdpAccountant
from accountant.statement import (
    COVERED,
    NOT_COVERED,
    round_down,
    round_up,
    state,
    state_as_json,
    weak_delta,
)

Answer = EpsilonBounds | RdpBound | float


def epsilon(args: argparse.Namespace) -> None:
    """ε of a run."""
    events = events_of(args, args.noise_multiplier, steps_of(args))
    _report(args, events, {})


def delta(args: argparse.Namespace) -> None:
    """δ of a run at an ε."""
    check(args.epsilon >= 0, "epsilon", args.epsilon, "must be ≥ 0")
    accountant_of(args.method)  # refuses an estimate
    exact = args.method == "exact"
    accountant = PldAccountant() if exact else RdpAccountant(method=args.method)
    accountant.compose_all(events_of(args, args.noise_multiplier, steps_of(args)))
    bounds = accountant.delta(args.epsilon)
    if args.json:
        held = {"lower": bounds.lower, "upper": bounds.upper} if exact else {}
        print_json({"delta": bounds.upper, "epsilon": args.epsilon, "method": args.method, **held})
        return
    held_in = f", proven to lie above {bounds.lower:.6g}" if exact else ""
    print(f"δ = {_above(bounds.upper)} at ε = {args.epsilon:g}{held_in} ({args.method})")


def noise(args: argparse.Namespace) -> None:
    """The least noise within ε, or at which an attacker stays below a bound."""
    if args.epsilon is None:
        noise_for_risk(args)
        return
    check(args.delta is not None, "delta", "None", "must be given with --epsilon")
    steps = steps_of(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BudgetNotReached)
        found = calibrate_noise(
            args.epsilon,
            args.delta,
            lambda sigma: events_of(args, sigma, steps),
            accountant=accountant_of(args.method),
        )
    for warning in caught:
        warn(str(warning.message))
    _report(args, events_of(args, found, steps), {"noise_multiplier": found})


def steps(args: argparse.Namespace) -> None:
    """The most steps within ε."""
    once = events_of(args, args.noise_multiplier, 1)
    check(len(once) == 1, "steps", "", "cannot be found for a mixture of events")
    event, per_step = once[0]
    most = calibrate_steps(args.epsilon, args.delta, event, accountant=accountant_of(args.method))
    whole = {Sampler.SHUFFLED: "epochs", Sampler.BALLS: "epochs", Sampler.ALLOCATION: "rounds"}
    unit = whole.get(args.sampler[0], "steps")
    most //= per_step
    found: dict[str, Any] = {unit: most}
    if unit == "steps":
        found["epochs"] = most * args.batch_size / args.n
    _report(args, [(event, most * per_step)], found)


def ledger(args: argparse.Namespace) -> None:
    """ε of what was written down."""
    check_delta(args.delta)
    _report(args, recorded(args), {})


def compare(args: argparse.Namespace) -> None:
    """Every method and every library."""
    from accountant.cli.comparison import compare as results

    check_delta(args.delta)
    events = events_of(args, args.noise_multiplier, steps_of(args))
    found = []
    for result in results(events, args.delta, args.limit):
        found.append(dataclasses.asdict(result))
        if not args.json:
            print(result, flush=True)
    if args.json:
        print_json({"delta": args.delta, "results": found})


def plot(args: argparse.Namespace) -> None:
    """δ against ε, and ε against steps."""
    from accountant.cli.plot import draw

    check_delta(args.delta)
    draw(events_of(args, args.noise_multiplier, steps_of(args)), args.delta, args.out)
    print(args.out)


def _report(
    args: argparse.Namespace, events: list[tuple[Event, int]], found: dict[str, Any]
) -> None:
    check(args.width > 0 and math.isfinite(args.width), "width", args.width, "must be a number > 0")
    answer = epsilon_by(args.method, events, args.delta, args.width)
    _warn_about(args, events, answer)
    value = answer if isinstance(answer, float) else answer.upper
    full = getattr(args, "statement", False)
    if args.json:
        fields = {**found, **as_json(answer), "delta": args.delta, "method": args.method}
        print_json({**fields, **(_in_full(args, events, value) if full else {})})
        return
    for name, number in found.items():
        print(f"{name} = {round_up(number, 6) if name == 'noise_multiplier' else f'{number:g}'}")
    print(f"ε = {round_up(value, 7)}{_how(answer)} ({args.method})")
    print(state(events, value, args.delta, events[0][0].relation, getattr(args, "group_size", 1)))
    if full:
        _print_in_full(args, events)


def _how(answer: Answer) -> str:
    match answer:
        case EpsilonBounds(lower=lower, upper=upper) if math.isfinite(upper):
            return f", proven to lie above {round_down(lower, 7)}"
        case RdpBound(order=order) if math.isfinite(order):
            return f" at Rényi order {order:.6g}"
    return ""


def _warn_about(args: argparse.Namespace, events: list[tuple[Event, int]], answer: Answer) -> None:
    if "n" in args and (weak := weak_delta(args.delta, args.n)):
        warn(weak)
    if args.method == "gdp":
        warn("gdp is an estimate and often below the truth; report --method exact")
    if isinstance(answer, EpsilonBounds) and not answer.narrow:
        warn(
            f"width = {args.width:g}: not reached; the interval holds ε all the same, and what "
            "lies between its ends is not known to be either"
        )
    if isinstance(answer, RdpBound) and answer.beyond_grid:
        accountant = RdpAccountant(method=args.method)
        accountant.compose_all(events)
        edge = accountant.epsilon(args.delta, search=False)
        warn(
            f"the best order on the common grid {COMMON_ORDERS[0]:g}…{COMMON_ORDERS[-1]:g} is its "
            f"edge {edge.order:g} (ε = {edge.upper:.7f}); searched beyond it"
        )


def _powers(events: list[tuple[Event, int]]) -> list[tuple[float, float]]:
    """What an attacker gains: (false positive rate, true positive rate) pairs."""
    from accountant.tradeoff import USUAL_RATES, attacker_power

    return list(zip(USUAL_RATES, attacker_power(events), strict=True))


def _beside(args: argparse.Namespace) -> list[tuple[str, float]]:
    from accountant.alternatives import side_by_side

    rows = side_by_side(
        dataset_size=args.n,
        batch_size=args.batch_size,
        noise_multiplier=args.noise_multiplier,
        steps=steps_of(args),
        delta=args.delta,
        microbatch_size=args.microbatch_size,
    )
    return [(row.name, row.epsilon.upper) for row in rows]


def _in_full(
    args: argparse.Namespace, events: list[tuple[Event, int]], value: float
) -> dict[str, Any]:
    return {
        "statement": state_as_json(events, value, args.delta, args.group_size),
        "attacker": [
            {"false_positive_rate": rate, "true_positive_rate": power}
            for rate, power in _powers(events)
        ],
        "side_by_side": [
            {"run": name, "epsilon": upper if math.isfinite(upper) else None}
            for name, upper in _beside(args)
        ],
    }


def _print_in_full(args: argparse.Namespace, events: list[tuple[Event, int]]) -> None:
    for title, items in (("Covered", COVERED), ("Not covered", NOT_COVERED)):
        print(f"\n{title}:", *items, sep="\n  - ")
    print("\nThe best attacker, deciding whether a record was used:")
    for rate, power in _powers(events):
        print(f"  {rate:>6.1%} false positives: at most {round_up(100 * power, 2):>6} % true ones")
    print(f"\nThe same noise, batch size and steps would give, at δ = {args.delta:g}:")
    for name, upper in _beside(args):
        print(f"  ε = {round_up(upper):>10}  {name}")


def _above(value: float) -> str:
    """Three digits, rounded up."""
    if value <= 0:
        return "0"
    digits = 2 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10.0**digits) / 10.0**digits:.3g}" if digits < 300 else "1e-300"
