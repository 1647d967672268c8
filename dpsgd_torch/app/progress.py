"""Progress: a live bar on a terminal, a line an epoch elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from accountant.statement import round_up
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.evidence import below
from dpsgd_torch.app.outcome import Outcome
from dpsgd_torch.audit.guessed import FROM_OUTSIDE, Guessed
from dpsgd_torch.training.history import EpochRecord
from dpsgd_torch.training.loop import Progress
from dpsgd_torch.training.trainer import Trainer

_TOLD = 8  # numbers of the test set on an epoch's line


class Presenter(Protocol):
    """Whoever shows a run: told its start, each stretch of training, and its end."""

    def compiling(self, seconds: int) -> None: ...

    def start(self, config: RunConfig, run: Trainer, folder: Path) -> None: ...

    def follow(self, name: str, progress: Iterable[Progress]) -> None: ...

    def end(self, outcome: Outcome) -> None: ...


def presenter(*, as_json: bool) -> Presenter:
    """The one that fits where stdout goes."""
    if as_json:
        return JsonPresenter()
    return LivePresenter() if sys.stdout.isatty() else LinePresenter()


class LinePresenter:
    """Plain lines: one at the start, one an epoch, a few at the end."""

    def compiling(self, seconds: int) -> None:
        self._say(f"compiling (about {seconds} s on one core; less where it was done before) ...")

    def start(self, config: RunConfig, run: Trainer, folder: Path) -> None:
        self.budget = run.plan.budget if run.plan else None
        promise = "without privacy"
        if run.plan:
            first = run.plan.step(0)
            promise = (
                f"noise multiplier {first.noise_multiplier:.6g}, clip norm {first.clip_norm:g}"
            )
            promise += f", budget ε = {self.budget:g}" if self.budget else ""
        sampling = run.sampling
        self._say(
            f"{config.preset}: {sampling.steps} steps of {sampling.batch_size} expected from "
            f"n = {sampling.dataset_size}{_units(sampling.unit)}, {promise}"
        )
        resumed = f", resumed after step {run.done}" if run.state.resumed else ""
        self._say(f"run folder: {folder}{resumed}")
        if program := run.state.method.program:
            self._say(f"compiled passes of {program.rows} rows, in {program.seconds:.0f} s")

    def follow(self, name: str, progress: Iterable[Progress]) -> None:
        started = time.monotonic()
        for at in progress:
            if at.record:
                elapsed = time.monotonic() - started
                self._say(f"{name}: {self._epoch(at.record)} ({elapsed:.0f} s{_speed(at)})")

    def end(self, outcome: Outcome) -> None:
        if outcome.stopped:
            self._say(f"ended early: {outcome.stopped}")
        if outcome.spent:
            spent = outcome.spent
            theirs = "; Opacus has no price for this sampler"
            if not math.isnan(spent.agreement):
                off = max(spent.agreement, 1e-16)
                theirs = f", and so does Opacus's, to {off:.0e} on equal orders"
            self._say(
                f"ε = {round_up(spent.epsilon)} at δ = {spent.delta!r} after {spent.steps} steps; "
                f"Rényi accounting says {spent.epsilon_rdp:.6g}{theirs}"
            )
        elif outcome.label_epsilon:
            self._say(f"ε = {outcome.label_epsilon:g} for labels alone; inputs are not protected")
        else:
            self._say("no privacy was asked for, none is promised")
        if audited := outcome.audited:
            found = audited.outside
            self._say(
                f"ε ≥ {below(found.best)} ({found.confidence:.0%}) by the coins of "
                f"{found.canaries} canaries in this very run"
                + _as_measured(found)
                + "; who knows every other record found:"
            )
            self._say(f"local, not covered by ε:\n{audited.inside}")
        name = "report.html" if outcome.history.epochs else "statement.txt"
        self._say(f"look at {outcome.folder / name}")

    def _epoch(self, record: EpochRecord) -> str:
        told = [f"test {name} {value:.4f}" for name, value in record.test.items()]
        if len(told) > _TOLD:
            told = [*told[:_TOLD], f"{len(told) - _TOLD} more in metrics.jsonl"]
        test = ", ".join(told)
        if record.validation is not None:
            test += f", validation {record.validation:.4f}"
        spent = "" if record.epsilon is None else f", ε = {round_up(record.epsilon)}"
        of = f" of {self.budget:g}" if self.budget and spent else ""
        return f"epoch {record.epoch}, step {record.step}: {test}{spent}{of}"

    def _say(self, text: str) -> None:
        print(text, flush=True)


class LivePresenter(LinePresenter):
    """The same lines above a bar: epoch, step, ε spent, examples a second, memory, time left."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console()

    def follow(self, name: str, progress: Iterable[Progress]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[spent]}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=None, spent="")
            for at in progress:
                spent = "" if at.epsilon is None else f"ε {round_up(at.epsilon, 3)}"
                spent += f" of {self.budget:g}" if spent and self.budget else ""
                bar.update(
                    task,
                    total=at.steps,
                    completed=at.step,
                    description=f"{name} epoch {at.epoch}",
                    spent=spent + _speed(at),
                )
                if at.record:
                    self._say(f"{name}: {self._epoch(at.record)}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


class JsonPresenter:
    """One JSON object a line: start, each epoch, end."""

    def compiling(self, seconds: int) -> None:
        self._emit("compiling", seconds=seconds)

    def start(self, config: RunConfig, run: Trainer, folder: Path) -> None:
        fields = config.to_json()
        self._emit("start", run=str(folder), config=fields, resumed_after=run.done)

    def follow(self, name: str, progress: Iterable[Progress]) -> None:
        for at in progress:
            if at.record:
                self._emit(
                    "epoch",
                    model=name,
                    **at.record.to_json(),
                    examples_per_second=at.examples_per_second,
                    peak_memory_mib=at.peak_memory,
                )

    def end(self, outcome: Outcome) -> None:
        privacy = outcome.spent.to_json() if outcome.spent else None
        audit = {"audit": outcome.audited.outside.to_json()} if outcome.audited else {}
        self._emit(
            "end", run=str(outcome.folder), privacy=privacy, stopped=outcome.stopped, **audit
        )

    def _emit(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)


def _as_measured(found: Guessed) -> str:
    """The bound that assumes the mechanism, where steps are alike."""
    if FROM_OUTSIDE not in found.bounds:
        return ""
    shown = below(found.bounds[FROM_OUTSIDE])
    return f", ε ≥ {shown} by noise, clip and rate as the noisy sums show them"


def _speed(at: Progress) -> str:
    """Examples a second, once there is one to tell, and the most memory so far."""
    rate = at.examples_per_second
    return f", {rate:,.4g} examples/s, {at.peak_memory:,} MiB" if rate else ""


def _units(unit: str) -> str:
    return "" if unit == "record" else f" (each a {unit})"
