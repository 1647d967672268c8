"""One run priced by every method of ours and by every library that is installed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from accountant.cli.peers import PEERS, Part
from accountant.errors import PrivacyError, UnsupportedEvent
from accountant.events import Event, Gaussian, PoissonSampled, Relation
from accountant.methods import METHODS, epsilon_by


@dataclass(frozen=True)
class Result:
    """What one method said, how long it took, or why it said nothing."""

    name: str
    epsilon: float | None = None
    lower: float | None = None
    seconds: float | None = None
    remark: str = ""

    def __str__(self) -> str:
        if self.epsilon is None:
            return f"{self.name:<20} {'—':>24}  {'':>9}  {self.remark}"
        low = "" if self.lower is None else f"{self.lower:.7g} … "
        took = f"{1000 * (self.seconds or 0):.1f} ms"
        return (
            f"{self.name:<20} {low + f'{self.epsilon:.7g}':>24}  {took:>9}  {self.remark}".rstrip()
        )


def compare(events: list[tuple[Event, int]], delta: float, limit: float = 60.0) -> Iterator[Result]:
    """Results as they come: ours first, then each library, in a process of its own."""
    exact: Result | None = None
    for name, meaning in METHODS.items():
        try:
            epsilon_by(name, events, delta)  # what is cached is cached for everybody
            started = time.perf_counter()
            answer = epsilon_by(name, events, delta)
        except UnsupportedEvent as error:
            yield Result(name, remark=str(error))
            continue
        seconds = time.perf_counter() - started
        epsilon = answer if isinstance(answer, float) else answer.upper
        lower = getattr(answer, "lower", None) if name == "exact" else None
        result = Result(name, epsilon, lower, seconds)
        exact = exact or result
        yield _remarked(result, exact, meaning)
    for name, peer in PEERS.items():
        if peer.installed and exact:
            yield _remarked(_ask(name, _parts(events), delta, limit), exact, "")


def _parts(events: list[tuple[Event, int]]) -> list[Part]:
    parts: list[Part] = []
    for event, count in events:
        match event:
            case PoissonSampled(
                sampling_rate=q,
                event=Gaussian(noise_multiplier=noise, relation=Relation.ADD_OR_REMOVE_ONE),
                group_size=1,
            ):
                parts.append((q, noise, count))
            case _:
                raise PrivacyError(
                    "compare: the other libraries price Poisson samples, for one record added or "
                    "removed, alone; leave --sampler, --relation and --group-size"
                )
    return parts


def _ask(name: str, parts: list[Part], delta: float, limit: float) -> Result:
    command = [sys.executable, "-m", "accountant.cli.peers", name]
    question = json.dumps({"parts": parts, "delta": delta})
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=limit, check=True
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Result(name, remark=f"stopped after {limit:g} s")
    except (subprocess.CalledProcessError, IndexError, json.JSONDecodeError) as error:
        said = (getattr(error, "stderr", "") or "no answer").strip().splitlines()
        return Result(name, remark=said[-1][:100])
    return Result(name, answer["epsilon"], answer["lower"], answer["seconds"])


def _remarked(result: Result, exact: Result, otherwise: str) -> Result:
    """Say where a value is below what provably holds, or an interval misses it."""
    if result.epsilon is None or result is exact:
        return result
    floor = exact.lower or 0.0
    if result.epsilon < floor:
        otherwise = "BELOW the truth: not a bound"
    elif (result.lower or 0.0) > (exact.epsilon or math.inf):
        otherwise = "an interval that MISSES the truth"
    return Result(result.name, result.epsilon, result.lower, result.seconds, otherwise)
