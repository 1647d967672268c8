"""ε and noise from the shell: ``python -m accountant --help``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from accountant.bounds import RdpBound
from accountant.calibration import calibrate_noise
from accountant.dpsgd import dpsgd_event, dpsgd_steps
from accountant.errors import PrivacyError, check_count
from accountant.events import Event
from accountant.rdp import COMMON_ORDERS, RdpAccountant
from accountant.statement import round_up, state, weak_delta


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_refuse(f"{message}; see {self.prog} --help"))


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m accountant",
        description="What DP-SGD costs: the ε of a run, or the noise for an ε.",
        epilog="Example: python -m accountant epsilon --n 60000 --batch-size 250 "
        "--noise-multiplier 1.3 --epochs 15 --delta 1e-5. Batches are Poisson samples (each record "
        "joins with probability batch size / n); neighbours differ by adding or removing one "
        "record. COMMAND --help explains the flags.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _Parser(add_help=False)
    run.add_argument("--n", type=int, required=True, help="records in the training set")
    run.add_argument("--batch-size", type=int, required=True, help="expected batch size")
    length = run.add_mutually_exclusive_group(required=True)
    length.add_argument("--epochs", type=float, help="passes over the data, in expectation")
    length.add_argument("--steps", type=int, help="steps, instead of epochs")
    run.add_argument("--delta", type=float, required=True, help="δ; keep it below 1/n")
    run.add_argument(
        "--microbatch-size",
        type=int,
        default=1,
        help="examples averaged before each clip; above 1 the noise counts for half (default 1)",
    )
    run.add_argument(
        "--method",
        choices=("rdp", "rdp-classic"),
        default="rdp",
        help="Rényi curve with the improved (default) or the classic conversion",
    )
    run.add_argument("--json", action="store_true", help="one JSON object on stdout")

    epsilon = commands.add_parser(
        "epsilon", parents=[run], help="ε of a DP-SGD run", description="ε of a DP-SGD run."
    )
    epsilon.add_argument(
        "--noise-multiplier", type=float, required=True, help="noise deviation / clip norm"
    )
    epsilon.set_defaults(answer=_epsilon)
    noise = commands.add_parser(
        "noise",
        parents=[run],
        help="the noise multiplier that keeps a run within ε",
        description="The least noise multiplier that keeps a DP-SGD run within ε.",
    )
    noise.add_argument("--epsilon", type=float, required=True, help="the ε not to pass")
    noise.set_defaults(answer=_noise)
    return parser


def _events(args: argparse.Namespace, noise_multiplier: float) -> list[tuple[Event, int]]:
    event = dpsgd_event(
        dataset_size=args.n,
        batch_size=args.batch_size,
        noise_multiplier=noise_multiplier,
        microbatch_size=args.microbatch_size,
    )
    steps = args.steps
    if steps is None:
        steps = dpsgd_steps(dataset_size=args.n, batch_size=args.batch_size, epochs=args.epochs)
    check_count("steps", steps)
    return [(event, steps)]


def _epsilon(args: argparse.Namespace) -> None:
    _report(args, _events(args, args.noise_multiplier))


def _noise(args: argparse.Namespace) -> None:
    noise = calibrate_noise(
        args.epsilon, args.delta, lambda sigma: _events(args, sigma), method=args.method
    )
    _report(args, _events(args, noise), noise_multiplier=noise)


def _report(args: argparse.Namespace, events: list[tuple[Event, int]], **found: float) -> None:
    accountant = RdpAccountant()
    for event, count in events:
        accountant.compose(event, count)
    bound = accountant.epsilon(args.delta, args.method)
    if weak := weak_delta(args.delta, args.n):
        _warn(weak)
    if bound.beyond_grid:
        edge = accountant.epsilon(args.delta, args.method, search=False)
        _warn(
            f"the best order on the common grid {COMMON_ORDERS[0]:g}…{COMMON_ORDERS[-1]:g} is its "
            f"edge {edge.order:g} (ε = {edge.upper:.7f}); searched beyond it"
        )
    if args.json:
        print(json.dumps({**found, **_as_json(bound), "delta": args.delta, "method": args.method}))
        return
    for name, value in found.items():
        print(f"{name} = {round_up(value, 6)}")
    where = f" at Rényi order {bound.order:.6g}" if math.isfinite(bound.upper) else ""
    print(f"ε = {round_up(bound.upper, 7)}{where} ({args.method})")
    print(state(events, bound.upper, args.delta))


def _as_json(bound: RdpBound) -> dict[str, float | None]:
    finite = math.isfinite(bound.upper)
    return {
        "epsilon": bound.upper if finite else None,
        "order": bound.order if finite else None,
    }


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        args.answer(args)
    except PrivacyError as error:
        return _refuse(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
