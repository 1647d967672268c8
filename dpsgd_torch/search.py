"""``python -m dpsgd_torch.search``: hyper-parameters chosen on private data, inside ε."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from accountant.selection import SearchBound, TruncatedNegativeBinomial
from accountant.statement import round_up
from dpsgd_torch.config import RunConfig
from dpsgd_torch.errors import ConfigError, RunError
from dpsgd_torch.mechanisms.exponential import choice_event, choose
from dpsgd_torch.presets import PRESETS
from dpsgd_torch.searching.allowance import Rule, allowance
from dpsgd_torch.searching.result import draw_picture, write_result
from dpsgd_torch.searching.space import Dimension, corners, default_space
from dpsgd_torch.searching.trials import Trials, events_of
from dpsgd_torch.shell import in_one_line
from dpsgd_torch.stored_config import config_from_json
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.training.run_folder import RunFolder
from dpsgd_torch.training.streams import Streams

_HELP = """\
Searches hyper-parameters with Optuna; the ε that is printed pays for the whole search.

--stopping random (the default) draws the number of trials, --trials in the mean, from a heavy-
tailed law, and releases the best alone: for 20 trials that costs little more than twice one run's ε
[Papernot, Steinke 2022]. It asks that no trial depends on another, so proposals are random. With
--stopping fixed every trial is paid for, which lets --sampler tpe learn from those before.
--select exponential (with --stopping fixed) chooses by the exponential mechanism on private rows
that are held out; otherwise trials are compared on test rows, which count as public.
"""


_KEPT = "private/search.json"
_FLAGS = {"fixed": "set"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m dpsgd_torch.search --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""
    return in_one_line(lambda: search(_parse(argv)), interrupted="interrupted; ")


def search(options: argparse.Namespace) -> None:
    """The whole story: rule → what a trial may spend → trials → choice → result."""
    folder, kept = _folder(options)
    config = _config(kept)
    rule = _rule(kept)
    task = load_task(config, options.data_dir)
    events_at = events_of(config, task)
    bound = SearchBound(**kept["bound"]) if kept["bound"] else None
    if bound is None:
        wanted = kept["epsilon"]
        bound = allowance(rule, lambda noise: events_at(config, noise), wanted, config.delta)
        kept["bound"] = dataclasses.asdict(bound)
        kept["count"] = rule.trials
        if rule.law:
            kept["count"] = rule.law.draw(np.random.default_rng(int(kept["seed"], 16)))
        folder.write_sealed(_KEPT, kept)
    trials = Trials(
        folder=folder.private / "trials",
        config=config,
        space=tuple(Dimension(**{**d, "choices": tuple(d["choices"])}) for d in kept["space"]),
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
    place = write_result(folder, trials, rule, bound.epsilon, best)
    say("end", f"ε = {round_up(bound.epsilon)} at δ = {config.delta!r}, the search included; the "
        f"chosen run is in {place}", epsilon=bound.epsilon, delta=config.delta,
        best=str(place))  # fmt: skip


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m dpsgd_torch.search",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, help="the run that is varied")
    add("--epsilon", type=float, help="ε of the whole search")
    add("--delta", type=float, help="δ of the whole search (the preset's)")
    add("--trials", type=int, default=20, help="how many, in the mean where it is random (20)")
    add("--stopping", choices=("random", "fixed"), default="random", help="see above (random)")
    add("--eta", type=float, default=0.0, help="shape of the random number's law: 1 is geometric; "
        "lower has a heavier tail and costs less (0)")  # fmt: skip
    add("--sampler", choices=("random", "tpe"), default="random", help="Optuna's (random)")
    add("--select", choices=("best", "exponential"), default="best", help="see above (best)")
    add("--selection-epsilon", type=float, default=0.5, help="ε of that choice (0.5)")
    add("--vary", action="append", default=[], metavar="NAME=LOW:HIGH[:log] or NAME=A,B,C",
        help="a field of the configuration to vary; may be given again (learning_rate and "
        "clip_norm, ten times either way)")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="fixed",
        help="another value than the preset's; may be given again")  # fmt: skip
    add("--data-dir", type=Path, help="the data's folder")
    add("--out", type=Path, help="a new folder for the search (runs/search-PRESET-…)")
    add("--resume", type=Path, metavar="DIR", help="go on with an interrupted search")
    add("--seed", type=int, help="repeatable; whoever knows it can subtract the noise")
    add("--json", action="store_true", help="progress as JSON lines on stdout")
    return parser


def _folder(options: argparse.Namespace) -> tuple[RunFolder, dict[str, Any]]:
    """The search's folder and what it keeps, newly made or as it was left."""
    if options.resume:
        _refuse_changes(options)
        folder = RunFolder(options.resume)
        folder.refuse_links()
        return folder, folder.read_sealed(_KEPT)
    if options.preset is None or options.epsilon is None:
        raise ConfigError("preset, epsilon: name both, as in --preset moa --epsilon 3")
    config = PRESETS[options.preset]().config
    changes: dict[str, Any] = {}
    for text in options.fixed:
        dimension = Dimension.parse(text, one=True)
        changes[dimension.name] = dimension.choices[0]
    if options.select == "exponential":
        changes["validation"] = "selection"
    if options.delta is not None:
        changes["delta"] = options.delta
    config = dataclasses.replace(config, epsilon=None, noise_multiplier=1.0, twin=False, **changes)
    _refuse(options)
    space = [Dimension.parse(text) for text in options.vary] or default_space(config)
    if len({dimension.name for dimension in space}) < len(space):
        raise ConfigError(f"vary = {', '.join(options.vary)}: names a field twice; drop one")
    for values in corners(space):  # refuse, before anything is spent, what no run would take
        dataclasses.replace(config, **values)
    root = Streams().root if options.seed is None else options.seed
    kept = {
        "config": {**config.to_json(), "seed": options.seed},
        "space": [dataclasses.asdict(dimension) for dimension in space],
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


def _refuse(options: argparse.Namespace) -> None:
    if not 0 < options.epsilon < math.inf:
        raise ConfigError(f"epsilon = {options.epsilon}: must be a number > 0")
    if not 0 < options.selection_epsilon < math.inf:
        raise ConfigError(
            f"selection_epsilon = {options.selection_epsilon}: must be a number > 0; try 0.5"
        )
    if options.trials < 1:
        raise ConfigError(f"trials = {options.trials}: must be at least 1")
    if options.stopping == "random" and options.sampler != "random":
        raise ConfigError(
            f"sampler = {options.sampler}: learns from earlier trials, which a random number of "
            "them does not pay for; pass --stopping fixed, or --sampler random"
        )
    if options.stopping == "random" and options.select != "best":
        raise ConfigError("select = exponential: is for --stopping fixed; pass it too")


def _refuse_changes(options: argparse.Namespace) -> None:
    """A search goes on as it began: its price was fixed before the first trial."""
    new = _parser().parse_args([])
    free = {"resume", "data_dir", "json"}
    changed = [name for name, value in vars(options).items()
               if name not in free and value != getattr(new, name)]  # fmt: skip
    if changed:
        names = ", ".join("--" + _FLAGS.get(name, name).replace("_", "-") for name in changed)
        raise ConfigError(f"resume = {options.resume}: a search goes on as it began; drop {names}")


def _config(kept: dict[str, Any]) -> RunConfig:
    try:
        seed = kept["config"]["seed"]
        fields = {**kept["config"], "seed": seed is not None}
    except (TypeError, KeyError) as error:
        raise RunError(
            f"search.json: is not of this version ({error}); resume with the one it began with"
        ) from error
    return config_from_json(fields, Path(_KEPT), seed)


def _rule(kept: dict[str, Any]) -> Rule:
    if kept["stopping"] == "random":
        law = TruncatedNegativeBinomial.with_mean(kept["trials"], kept["eta"])
        return Rule(law=law, trials=kept["trials"])
    chosen = kept["select"] == "exponential"
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


if __name__ == "__main__":
    sys.exit(main())
