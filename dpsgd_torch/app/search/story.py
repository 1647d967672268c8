"""A search, from what was asked to the chosen run: hyper-parameters on private data, inside ε."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from accountant.selection import SearchBound, TruncatedNegativeBinomial
from accountant.statement import round_up
from dpsgd_torch.app.config import RunConfig, is_knob
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.statement import about
from dpsgd_torch.app.search.allowance import Events, Rule, allowance, noise_within
from dpsgd_torch.app.search.flags import Asked
from dpsgd_torch.app.search.followed import follow, follow_size, told
from dpsgd_torch.app.search.result import draw_picture, write_result
from dpsgd_torch.app.search.space import Dimension, corners
from dpsgd_torch.app.search.trials import Trials, events_of
from dpsgd_torch.app.stored_config import config_from_json
from dpsgd_torch.errors import RunError
from dpsgd_torch.mechanisms.exponential import choice_event, choose
from dpsgd_torch.mechanisms.library import opendp
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.streams import Streams

_KEPT = "private/search.json"


def search(options: argparse.Namespace, asked: Asked | None) -> None:
    """The whole story: rule → what a trial may spend → trials → choice → result."""
    folder, kept = _begin(options, asked) if asked else _go_on(options)
    config = _config(kept)
    rule = _rule(kept)
    task = load_task(config, options.data_dir)
    bound = SearchBound(**kept["bound"]) if kept["bound"] else None
    if bound is None:
        config = follow_size(config, kept, task)
    events_at = events_of(config, task)
    if bound is None:
        for corner in corners(_space(kept)):  # refused before a trial is charged
            events_at(config.changed(**corner), 1.0)
        wanted = kept["epsilon"]
        plain = config

        def base(noise: float) -> Events:
            return events_at(plain, noise)

        bound = allowance(rule, base, wanted, config.delta)
        kept["bound"] = dataclasses.asdict(bound)
        config = follow(plain, kept, base(noise_within(bound, base)))
        kept["count"] = rule.trials
        if rule.law:
            kept["count"] = rule.law.draw(np.random.default_rng(int(kept["seed"], 16)))
        folder.write_sealed(_KEPT, kept)
    trials = Trials(
        folder=folder.private / "trials",
        config=config,
        space=_space(kept),
        sampler=kept["sampler"],
        seed=int(kept["seed"], 16),
        bound=bound,
        data_dir=options.data_dir,
    )
    trials.folder.mkdir(exist_ok=True)
    say = _Teller(options.json)
    say("start", f"{config.preset}: {kept['count']} trials, ε = {round_up(bound.epsilon)} for them "
        f"all at δ = {config.delta!r}; search folder: {folder.path}", folder=str(folder.path),
        trials=kept["count"], epsilon=bound.epsilon)  # fmt: skip
    for number in range(len(trials.finished()), kept["count"]):
        started = time.monotonic()
        with _resumable(folder, options):
            row = trials.take(number, events_at)
        draw_picture(folder, trials)
        values = ", ".join(f"{name} {_short(value)}" for name, value in row["values"].items())
        say("trial", f"trial {row['trial']} of {kept['count']}: score {row['score']:.5f}, {values} "
            f"({time.monotonic() - started:.0f} s)", **row)  # fmt: skip
    best = _choice(trials, rule, folder, kept)
    place = write_result(
        folder, trials, rule, bound.epsilon, best, told(kept), _known(task, config, best, options)
    )
    say("end", f"ε = {round_up(bound.epsilon)} at δ = {config.delta!r}, the search included; the "
        f"chosen run is in {place}", epsilon=bound.epsilon, delta=config.delta,
        best=str(place))  # fmt: skip


def _known(
    task: Task, config: RunConfig, best: dict[str, Any], options: argparse.Namespace
) -> list[str]:
    """What the chosen run's statement says of its data and of what was known before it."""
    if any(is_knob(name) for name in best["values"]):
        task = load_task(config.changed(**best["values"]), options.data_dir)
    chosen = PRESETS[config.preset]().chosen
    return about(task.note, " ".join(filter(None, (task.prior, chosen))))


def _go_on(options: argparse.Namespace) -> tuple[RunFolder, dict[str, Any]]:
    """The search's folder and what it keeps, as it was left."""
    folder = RunFolder(options.resume)
    folder.refuse_links()
    return folder, folder.read_sealed(_KEPT)


def _begin(options: argparse.Namespace, asked: Asked) -> tuple[RunFolder, dict[str, Any]]:
    """The search's folder and what it keeps, newly made."""
    root = Streams().root if options.seed is None else options.seed
    kept = {
        "config": {**asked.config.to_json(), "seed": options.seed},
        "space": [dataclasses.asdict(dimension) for dimension in asked.space],
        "given": list(asked.given),
        "epsilon": options.epsilon,
        "seed": f"{root:x}",
        "bound": None,
        **{name: getattr(options, name) for name in
           ("trials", "stopping", "eta", "sampler", "select", "selection_epsilon")},
    }  # fmt: skip
    _rule(kept)
    folder = RunFolder(options.out or _fresh_name(options.preset))
    folder.create()
    folder.write_sealed(_KEPT, kept)
    return folder, kept


def _config(kept: dict[str, Any]) -> RunConfig:
    try:
        seed = kept["config"]["seed"]
        fields = {**kept["config"], "seed": seed is not None}
    except (TypeError, KeyError) as error:
        raise RunError(
            f"search.json: is not of this version ({error}); resume with the one it began with"
        ) from error
    return config_from_json(fields, Path(_KEPT), seed)


def _space(kept: dict[str, Any]) -> tuple[Dimension, ...]:
    return tuple(Dimension(**{**d, "choices": tuple(d["choices"])}) for d in kept["space"])


def _rule(kept: dict[str, Any]) -> Rule:
    if kept["stopping"] == "random":
        law = TruncatedNegativeBinomial.with_mean(kept["trials"], kept["eta"])
        return Rule(law=law, trials=kept["trials"])
    chosen = kept["select"] == "exponential"
    if chosen:
        opendp()  # now, or not at all: trials are charged before the choice
    once = ((choice_event(kept["selection_epsilon"]), 1),) if chosen else ()
    return Rule(law=None, trials=kept["trials"], once=once)


def _choice(trials: Trials, rule: Rule, folder: RunFolder, kept: dict[str, Any]) -> dict[str, Any]:
    """The trial with the least score, or the one that the exponential mechanism chose, once."""
    rows = trials.finished()
    if not rule.once:
        return min(rows, key=lambda row: float(row["score"]))
    if "chosen" not in kept:
        told = [
            RunFolder(trials.folder / f"{row['trial']:04d}").read_json("private/selection.json")
            for row in rows
        ]
        scores = -np.array([score["sum"] for score in told])
        event = choice_event(kept["selection_epsilon"])
        most = max(score["bound"] for score in told)
        picked = choose(scores, event, sensitivity=most, monotone=True)
        kept["chosen"] = int(picked[0])
        folder.write_sealed(_KEPT, kept)
    return rows[int(kept["chosen"])]


@contextlib.contextmanager
def _resumable(folder: RunFolder, options: argparse.Namespace) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        data = f" --data-dir {options.data_dir}" if options.data_dir else ""
        command = f"python -m dpsgd_torch.search --resume {folder.path}{data}"
        raise KeyboardInterrupt(f"go on with {command}") from None


class _Teller:
    """Says one line an event, or one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json

    def __call__(self, event: str, words: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}) if self._json else words, flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fresh_name(preset: str) -> Path:
    return Path("runs") / f"search-{preset}-{datetime.now():%Y%m%d-%H%M%S}"
