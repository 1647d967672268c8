"""The trials of a search, one run folder each, and what is kept so that it can go on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accountant.ledger.recorded import read_charges, read_events
from accountant.selection import SearchBound
from dpsgd_torch.app.assembly import plan_of
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.flags import Request
from dpsgd_torch.app.folds import chosen_units, make_folds, sized
from dpsgd_torch.app.outcome import Outcome
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.app.presets import Preset
from dpsgd_torch.app.run import run
from dpsgd_torch.app.search.allowance import Events, noise_within, within
from dpsgd_torch.app.search.space import Dimension, proposal
from dpsgd_torch.errors import GuaranteeBroken, RunError
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.storage.sealed import sealed, unsealed
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.loop import Progress
from dpsgd_torch.training.trainer import Trainer

_RESULTS = "results.jsonl"


class Silent:
    """A presenter of runs that says nothing: the search speaks for them."""

    def compiling(self, seconds: int) -> None: ...

    def start(self, config: RunConfig, run: Trainer, folder: Path) -> None: ...

    def follow(self, name: str, progress: Iterable[Progress]) -> None:
        for _ in progress:
            pass

    def end(self, outcome: Outcome) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Runs trials by number; each one's values follow from ``seed``, its number and the past.

    ``folder`` is private: what it holds, but for the best run, no ε covers.
    """

    folder: Path
    config: RunConfig
    space: tuple[Dimension, ...]
    sampler: str
    seed: int
    bound: SearchBound
    data_dir: Path | None

    def finished(self) -> list[dict[str, Any]]:
        """Values and score of every trial that is done, in order."""
        path = self.folder / _RESULTS
        try:
            return [unsealed(row) for row in RunFolder(self.folder).read_lines(_RESULTS)]
        except ValueError as error:
            raise RunError(f"{path}: cannot be read ({error}); restore it") from error

    def take(self, number: int, events_at: Callable[[RunConfig, float], Events]) -> dict[str, Any]:
        """Run trial ``number``, or go on with it; returns its values, score and folder."""
        past = [(row["values"], row["score"]) for row in self.finished()]
        values = proposal(self.space, self.sampler, self.seed, number, past)
        config = self.config.changed(**values)
        config = dataclasses.replace(
            config,
            noise_multiplier=noise_within(self.bound, lambda noise: events_at(config, noise)),
            epsilon=None,
            seed=None if self.config.seed is None else self.config.seed + number,
        )
        folder = self.folder / f"{number + 1:04d}"
        begun = not RunFolder(folder).is_free  # if stopped before anything was charged, it is free
        request = Request(
            preset=Preset(config, "a trial of a search"),
            data_dir=self.data_dir,
            out=None if begun else folder,
            resume=folder if begun else None,
            json=False,
            partial="refuse",
        )
        outcome = run(request, Silent())
        spent = outcome.spent  # a run that its scores ended costs what was planned, which is within
        paid_twice = spent is not None and spent.watched and _began_anew(folder)
        if paid_twice or not within(self.bound, read_events(folder / "ledger.sqlite")):
            raise GuaranteeBroken(
                f"trial {number + 1}: its ledger is above what a trial may spend (was it "
                "interrupted where steps cannot be repeated?); the search states no ε: begin anew"
            )
        row = {"trial": number + 1, "values": values, "score": score_of(outcome)}
        rows = [*self.finished(), row]
        RunFolder(self.folder).write_lines(_RESULTS, map(sealed, rows))
        return row


def _began_anew(folder: Path) -> bool:
    """Whether anything was drawn and paid anew: a step, or a round that more than it belong to."""
    return len({attempt for attempt, _, _ in read_charges(folder / "ledger.sqlite")}) > 1


def score_of(outcome: Outcome) -> float:
    """What trials are compared by, lower is better: the last public test loss, else the last
    validation score, which was paid for or is public. Worst where there is neither."""
    epochs = outcome.history.epochs
    if epochs and "loss" in epochs[-1].test:
        value = epochs[-1].test["loss"]
    else:
        value = outcome.history.scores[-1] if outcome.history.scores else math.inf
    return value if math.isfinite(value) else math.inf


def events_of(config: RunConfig, task: Task) -> Callable[[RunConfig, float], Events]:
    """(candidate, noise multiplier) → everything that its run would release.

    Candidates differ from ``config`` only in what may be varied: not in who is held out.
    """
    units = chosen_units(config, task)
    whole = sized(config, task, units)
    fold = make_folds(whole, task, units, 0)[0]

    def events_at(candidate: RunConfig, noise: float) -> Events:
        asked = dataclasses.replace(
            candidate, dataset_size=whole.dataset_size, noise_multiplier=noise, epsilon=None
        )
        preprocessing = Preprocessing.of(asked, task)
        mine = dataclasses.replace(asked, dataset_size=fold.config.dataset_size)
        watched = fold.validation and dataclasses.replace(
            fold.validation, noise_multiplier=candidate.validation_noise
        )
        plan = plan_of(dataclasses.replace(fold, config=mine, validation=watched), preprocessing)
        assert plan is not None
        return plan.events()

    return events_at
