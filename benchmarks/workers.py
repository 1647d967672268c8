"""Every accountant behind one call, each in a process of its own, and what it answered.

An *ask* takes the parts of a run, as (sampling rate, noise multiplier, steps), and δ; it answers
(lower, upper), or (None, ε) where the tool gives one number; those of other libraries are in
``accountant.cli.peers``. Every tool sees the same parts, the
Poisson-sampled Gaussian also at a rate of 1, as a trainer hands them on.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Any

from accountant import Gaussian, PldAccountant, PoissonSampled, RdpAccountant
from accountant.cli import peers
from accountant.cli.peers import WARM_UP, Answer, Ask, Fold

TRUTH = Fraction(4, 10**15)  # relative, to which the golden ε are known
START = 120.0  # seconds a tool may take to be imported and warmed


@dataclass(frozen=True)
class Row:
    """One run to be priced, and its ε where that is known."""

    name: str
    parts: list[Fold]
    delta: float
    exact: str = "nan"

    @property
    def truth(self) -> float:
        return float(self.exact)


@dataclass(frozen=True)
class Outcome:
    """What one tool made of one run."""

    tool: str
    row: Row
    lower: float | None = None
    upper: float = float("nan")
    seconds: float = float("nan")
    busy: float = float("nan")  # seconds of a processor
    peak_mib: float = 0.0
    grown_mib: float = 0.0
    failure: str = ""

    @property
    def error(self) -> float:
        return (self.upper - self.row.truth) / max(self.row.truth, 1e-3)

    @property
    def core(self) -> float:
        return self.busy / self.seconds

    @property
    def below(self) -> bool:
        return self.error < -1e-9

    @property
    def misses(self) -> bool:
        truth, lower = Fraction(self.row.exact), self.lower or 0.0
        return not (lower <= truth * (1 + TRUTH) and truth * (1 - TRUTH) <= self.upper)

    @property
    def width(self) -> float:
        return (self.upper - (self.lower or 0.0)) / max(1.0, self.row.truth)


@dataclass(frozen=True)
class Tool:
    """One accountant of one package; ``prepare`` imports it."""

    package: str
    prepare: Callable[[], Ask]
    slow: bool = False  # left out by --quick

    @property
    def ours(self) -> bool:
        return self.package == "accountant"


def release(rate: float, noise: float) -> PoissonSampled:
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


def ours_exact(width: float | None = None) -> Ask:
    def ask(parts: list[Fold], delta: float) -> Answer:
        accountant = PldAccountant()
        for rate, noise, steps in parts:
            accountant.compose(release(rate, noise), steps)
        bounds = accountant.epsilon(delta, width)
        return bounds.lower, bounds.upper

    return ask


def ours_rdp() -> Ask:
    def ask(parts: list[Fold], delta: float) -> Answer:
        accountant = RdpAccountant()
        for rate, noise, steps in parts:
            accountant.compose(release(rate, noise), steps)
        return None, accountant.epsilon(delta).upper

    return ask


def dp_accounting_bracket() -> Ask:
    """Its optimistic and its pessimistic estimate, at the default interval of 1e-4."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    def estimate(parts: list[Fold], delta: float, pessimistic: bool) -> float:
        total = pld.identity(pessimistic_estimate=pessimistic)
        for rate, noise, steps in parts:
            one = pld.from_gaussian_mechanism(
                noise,
                sampling_prob=rate,
                pessimistic_estimate=pessimistic,
                use_connect_dots=pessimistic,  # there is no other optimistic one
            )
            total = total.compose(one.self_compose(steps))
        return float(total.get_epsilon_for_delta(delta))

    return lambda parts, delta: (estimate(parts, delta, False), estimate(parts, delta, True))


EXACT, NARROW = "ours, exact", "ours, exact, width 1e-8"
TOOLS: dict[str, Tool] = {
    EXACT: Tool("accountant", ours_exact),
    NARROW: Tool("accountant", functools.partial(ours_exact, 1e-8)),
    "ours, RDP": Tool("accountant", ours_rdp),
    "dp_accounting RDP": Tool("dp_accounting", peers.dp_accounting_rdp),
    "dp_accounting PLD": Tool("dp_accounting", peers.dp_accounting_pld),
    "dp_accounting PLD, both": Tool("dp_accounting", dp_accounting_bracket, slow=True),
    "Opacus RDP": Tool("opacus", peers.opacus_rdp),
    "Opacus PRV": Tool("opacus", peers.opacus_prv),
    "Opacus GDP": Tool("opacus", peers.opacus_gdp),
    "prv_accountant ±0.1": Tool("prv_accountant", peers.prv_accountant),
    "prv_accountant ±0.01": Tool(
        "prv_accountant", functools.partial(peers.prv_accountant, 0.01), slow=True
    ),
    "autodp RDP": Tool("autodp", peers.autodp),
}


class Worker:
    """A tool in a process of its own, started afresh when it overruns its time or dies."""

    def __init__(self, name: str, *, limit: float, memory: int) -> None:
        self.name, self.limit, self.memory = name, limit, memory
        self._process: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, row: Row) -> Outcome:
        try:
            if self._process is None:
                self._start()
            self._pipe.send((row.parts, row.delta))
            if self._pipe.poll(self.limit):
                return Outcome(self.name, row, **self._pipe.recv())
            failure = f"over {self.limit:g} s"
        except (EOFError, OSError):
            failure = "died"
        self._stop()
        return Outcome(self.name, row, failure=failure)

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        arguments = (self.name, self.memory, theirs)
        self._process = spawn.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START):
            raise EOFError
        self._pipe.recv()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(name: str, memory: int, pipe: Any) -> None:
    """The worker's side: answer until the other end hangs up."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    tool = TOOLS[name]
    with contextlib.nullcontext() if tool.ours else peers.quiet():
        ask = tool.prepare()
        imported = peak_mib()
        ask(*WARM_UP)
        pipe.send("ready")
        while True:
            try:
                question = pipe.recv()
            except EOFError:
                return
            answer = _answer(ask, tool.package, *question)
            peak = peak_mib()
            pipe.send({**answer, "peak_mib": peak, "grown_mib": peak - imported})


def _answer(ask: Ask, package: str, parts: list[Fold], delta: float) -> dict[str, Any]:
    try:
        (lower, upper), seconds, busy = timed(
            lambda: ask(parts, delta), before=lambda: _forget(package)
        )
    except Exception as error:
        return {"failure": type(error).__name__.replace("_Array", "")}
    lower, upper = None if lower is None else float(lower), float(upper)
    if math.isnan(upper):
        return {"failure": "nan"}
    return {"lower": lower, "upper": upper, "seconds": seconds, "busy": busy}


def timed(
    action: Callable[[], Any], *, repeats: int = 3, before: Callable[[], None] = lambda: None
) -> tuple[Any, float, float]:
    """What ``action`` returns; median seconds that passed, and that a processor worked.

    What takes more than a second is not repeated.
    """
    passed: list[float] = []
    worked: list[float] = []
    while len(passed) < repeats and max(passed, default=0.0) < 1:
        before()
        clocks = time.perf_counter(), time.process_time()
        result = action()
        passed.append(time.perf_counter() - clocks[0])
        worked.append(time.process_time() - clocks[1])
    return result, median(passed), median(worked)


def _forget(package: str) -> None:
    """Empty the package's caches: a repeat must not find the answer there."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


def peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
