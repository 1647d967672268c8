"""The flags of a search, and what they ask for: refused, where it must be, before torch loads."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.search.space import Dimension, corners, default_space
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.shell import Parser

_HELP = """\
Searches hyper-parameters with Optuna; the ε that is printed pays for the whole search.

--stopping random (the default) draws the number of trials, --trials in the mean, from a heavy-
tailed law, and releases the best alone: for 20 trials that costs little more than twice one run's ε
[Papernot, Steinke 2022]. It asks that no trial depends on another, so proposals are random. With
--stopping fixed every trial is paid for, which lets --sampler tpe learn from those before.
--select exponential (with --stopping fixed) chooses by the exponential mechanism on private rows
that are held out; otherwise trials are compared on test rows, which count as public.
What of a preset follows ε, and is neither varied nor set, follows what one trial may spend.
"""

_FLAGS = {"fixed": "set"}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a new search varies, and where it starts from."""

    config: RunConfig
    space: tuple[Dimension, ...]
    """Empty: the default one, around what the settings are that follow ε."""
    given: tuple[str, ...] = ()
    """What was set, and follows nothing."""


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Asked | None]:
    """The flags in ``argv``, and what they ask for; None where a search goes on.

    Raises:
        ConfigError: an unknown flag, or a value that no search takes.
    """
    options = _parser().parse_args(argv)
    if options.resume:
        _refuse_changes(options)
        return options, None
    return options, _asked(options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "search",
        ConfigError,
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


def _asked(options: argparse.Namespace) -> Asked:
    if options.preset is None or options.epsilon is None:
        raise ConfigError("preset, epsilon: name both, as in --preset moa --epsilon 3")
    preset = PRESETS[options.preset]()
    changes: dict[str, Any] = {}
    for text in options.fixed:
        dimension = Dimension.parse(text, one=True)
        changes[dimension.name] = dimension.choices[0]
    if options.select == "exponential":
        changes["validation"] = "selection"
    if options.delta is not None:
        changes["delta"] = options.delta
    trial = {"epsilon": None, "noise_multiplier": 1.0, "twin": False}
    config = preset.changed({**trial, **changes}).config
    _refuse(options)
    if config.sampling == "passes":
        raise ConfigError(
            "sampling = passes: is priced for records replaced, a search for records added or "
            "removed; drop it"
        )
    space = [Dimension.parse(text) for text in options.vary]
    if len({dimension.name for dimension in space}) < len(space):
        raise ConfigError(f"vary = {', '.join(options.vary)}: names a field twice; drop one")
    if config.sampling.startswith("truncated"):  # charged as δ, of which no search's price knows
        raise ConfigError(
            f"sampling = {config.sampling}: a search is priced by Rényi divergences, which "
            "truncated samples do not have; take poisson"
        )
    for values in corners(
        space or default_space(config)
    ):  # refuse, before anything is spent, what no run would take
        config.changed(**values)
    return Asked(config, tuple(space), tuple(changes))


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
