"""What the command line's flags ask about, and how its answers are written."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from accountant.dpsgd import dpsgd_events, dpsgd_steps
from accountant.errors import check_count
from accountant.events import Event, Relation
from accountant.groups import for_group


def steps_of(args: argparse.Namespace) -> int:
    """The run's steps, or those of its epochs."""
    if args.steps is None:
        return dpsgd_steps(dataset_size=args.n, batch_size=args.batch_size, epochs=args.epochs)
    check_count("steps", args.steps)
    return int(args.steps)


def events_of(args: argparse.Namespace, sigma: float, steps: int) -> list[tuple[Event, int]]:
    """A run of the flags, with that noise, as one person\'s records see it."""
    run = dpsgd_events(
        dataset_size=args.n,
        batch_size=args.batch_size,
        noise_multiplier=sigma,
        steps=steps,
        microbatch_size=args.microbatch_size,
        sampler=args.sampler[0],
        relation=Relation(args.relation) if args.relation else None,
        number=args.sampler[1],
    )
    return [
        (part, count * times)
        for event, count in run
        for part, times in for_group(event, args.group_size)
    ]


def recorded(args: argparse.Namespace) -> list[tuple[Event, int]]:
    """What was written down, with a warning where its noise was not what it says."""
    from accountant.ledger.recorded import drawn_in_float32, read_events

    events = read_events(args.file)
    if drawn_in_float32(args.file):
        warn(
            f"ledger {args.file}: its Gaussian noise was drawn in float32, which ends at 5.77 "
            "deviations and can be read off in pairs; this ε does not hold against who does"
        )
    return events


def print_json(fields: dict[str, Any]) -> None:
    """One object on stdout."""
    print(json.dumps(fields))


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr)
