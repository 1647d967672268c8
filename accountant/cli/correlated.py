"""The answer of ``correlated``: ε of correlated noise, and its error beside independent noise's."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

from accountant.bounds import EpsilonBounds
from accountant.calibration import calibrate_noise
from accountant.cli.asked import print_json, steps_of, warn
from accountant.dpsgd import dpsgd_event
from accountant.errors import check, check_delta
from accountant.events import Event, Relation
from accountant.factorization.factor import Factor
from accountant.factorization.kinds import factor_of, usual
from accountant.factorization.participation import FixedEpochs, Participation, Reshuffled
from accountant.factorization.pricing import CyclicPoisson, Scheme, Unsampled
from accountant.factorization.square_roots import independent
from accountant.methods import epsilon_by
from accountant.statement import round_down, round_up, state, weak_delta


@dataclass(frozen=True)
class _Run:
    """What the flags ask about."""

    scheme: Scheme
    factor: Factor
    steps: int
    beside: str  # what independent noise is sampled by, for the same batches

    def error(self, noise_multiplier: float) -> float:
        """Of a prefix sum, root mean square, in clip norms."""
        rms = self.factor.root_mean_square_error(self.scheme.participation)
        return noise_multiplier * rms


def correlated(args: argparse.Namespace) -> None:
    """ε of a run with correlated noise, or the noise for an ε, and the error of prefix sums."""
    check_delta(args.delta)
    run = _run(args)
    noise = args.noise_multiplier
    if noise is None:
        noise = calibrate_noise(args.epsilon, args.delta, lambda x: run.scheme.events(x, run.steps))
    events = run.scheme.events(noise, run.steps)
    answer = epsilon_by("exact", events, args.delta, args.width)
    assert isinstance(answer, EpsilonBounds)
    if weak := weak_delta(args.delta, args.n):
        warn(weak)
    ratio = _ratio(args, run, noise, answer.upper)
    bound = run.factor.bound(run.scheme.participation)
    if args.json:
        print_json(_as_json(args, run, noise, answer, ratio))
        return
    relation = events[0][0].relation
    print(f"noise_multiplier = {round_up(noise, 6)}")
    lower = round_down(answer.lower, 7)
    print(f"ε = {round_up(answer.upper, 7)}, proven to lie above {lower} (exact)")
    print(state(events, answer.upper, args.delta, relation))
    print(
        f"sensitivity {round_up(bound.upper, 6)} × clip norm"
        f"{'' if bound.exact else ' at most'}: {bound.rests_on}"
    )
    print(
        f"noise of {run.factor.name}, {run.factor.kept} vectors kept; rms error of prefix sums "
        f"{run.error(noise):.6g} × clip norm,\n{ratio:.4g} of independent noise's at the same ε, "
        f"{run.beside}"
    )
    print("It rests on:", *_rests_on(run.scheme), sep="\n  - ")


def _run(args: argparse.Namespace) -> _Run:
    n, batch, steps = args.n, args.batch_size, steps_of(args)
    check(n >= 1, "n", n, "must be at least 1 record")
    check(1 <= batch <= n, "batch_size", batch, f"must lie between 1 and n = {n}")
    check(steps >= 1, "steps", steps, "must be at least 1")
    bands = usual(args.kind) if args.bands is None else args.bands
    relation = Relation(args.relation) if args.relation else None
    scheme: Scheme
    if args.sampling == "cyclic":
        check(args.passes is None, "passes", args.passes, "is of runs without sampling", "leave it")
        scheme = CyclicPoisson(
            dataset_size=n,
            batch_size=batch,
            parts=bands,
            relation=relation or Relation.ADD_OR_REMOVE_ONE,
        )
        factor = factor_of(f"{args.kind}:{bands}", steps)
        scheme.check(factor)
        return _Run(scheme, factor, steps, "Poisson samples of the same size")
    epoch = math.ceil(n / batch)
    passes: Participation = (
        Reshuffled(steps_per_epoch=epoch)
        if args.passes == "reshuffled"
        else FixedEpochs(steps_per_epoch=epoch)
    )
    scheme = Unsampled(participation=passes, relation=relation or Relation.REPLACE_ONE)
    factor = factor_of(f"{args.kind}:{bands}", steps, passes)
    return _Run(scheme, factor, steps, "the same passes")


def _ratio(args: argparse.Namespace, run: _Run, noise: float, epsilon: float) -> float:
    """This error by that of independent noise, which costs as much."""
    one = independent(run.steps)
    if isinstance(run.scheme, Unsampled):
        return run.error(noise) / (noise * one.root_mean_square_error(run.scheme.participation))
    relation = run.scheme.relation

    def plain(sigma: float) -> list[tuple[Event, int]]:
        if relation is Relation.ADD_OR_REMOVE_ONE:
            step = dpsgd_event(
                dataset_size=args.n, batch_size=args.batch_size, noise_multiplier=sigma
            )
            return [(step, run.steps)]
        scheme = CyclicPoisson(
            dataset_size=args.n, batch_size=args.batch_size, parts=1, relation=relation
        )
        return scheme.events(sigma, run.steps)

    if not 0 < epsilon < math.inf:
        return math.nan
    same = calibrate_noise(epsilon, args.delta, plain)
    return run.error(noise) / (same * one.root_mean_square_error(run.scheme.participation))


def _rests_on(scheme: Scheme) -> list[str]:
    if isinstance(scheme, CyclicPoisson):
        own = (
            "drawn for it or hashed from its key, whatever the others are"
            if scheme.relation is Relation.ADD_OR_REMOVE_ONE
            else "settled by its place in the data set"
        )
        return [
            f"each record is in one of {scheme.parts} parts, {own}",
            f"step t samples part t mod {scheme.parts} alone, each record with probability "
            f"{scheme.sampling_rate:.6g}, independently",
        ]
    order = (
        "the order of records is shuffled for each pass; no credit for that"
        if isinstance(scheme.participation, Reshuffled)
        else "every pass takes the batches in the same order"
    )
    own = (
        "a record's steps are public and do not depend on other records: one that is missing "
        "leaves a hole"
        if scheme.relation is Relation.ADD_OR_REMOVE_ONE
        else "a record's steps are settled by its place; the noise counts for half"
    )
    return [order, own]


def _as_json(
    args: argparse.Namespace, run: _Run, noise: float, answer: EpsilonBounds, ratio: float
) -> dict[str, Any]:
    bound = run.factor.bound(run.scheme.participation)
    return {
        "noise_multiplier": noise,
        "epsilon": answer.upper,
        "lower": answer.lower,
        "upper": answer.upper,
        "delta": args.delta,
        "relation": run.scheme.relation.value,
        "sensitivity": bound.upper,
        "sensitivity_is_exact": bound.exact,
        "sensitivity_rests_on": bound.rests_on,
        "vectors_kept": run.factor.kept,
        "root_mean_square_error": run.error(noise),
        "of_independent_noise": ratio if math.isfinite(ratio) else None,
        "events": [
            {**event.to_json(), "count": count}
            for event, count in run.scheme.events(noise, run.steps)
        ],
        "rests_on": _rests_on(run.scheme),
        "factor": run.factor.to_json(),
    }
