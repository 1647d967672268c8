"""Flags from the fields of RunConfig, with the preset's values as their defaults."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS, Preset
from dpsgd_torch.app.settings import GROUPS
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.shell import Parser
from dpsgd_torch.tasks.base import Knobs
from dpsgd_torch.tasks.registry import TASKS, kind_of

_DEFAULT = "mnist-tutorial"
_OWN = ("data_dir", "out", "resume", "json", "partial", "timeout")
TIMEOUT = 1800.0  # seconds, as in training.world, which loads torch


@dataclass(frozen=True)
class Request:
    """What the command line asks for: a new run of ``preset``, or to resume one."""

    preset: Preset
    data_dir: Path | None
    out: Path | None
    resume: Path | None
    json: bool
    partial: str
    timeout: float = TIMEOUT


def parse(argv: Sequence[str] | None = None) -> Request:
    """The request in ``argv``.

    Raises:
        ConfigError: an unknown flag, preset or value, or flags beside --resume.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = _preset_name(arguments)
    preset = PRESETS[name]()
    given = vars(_parser(preset).parse_args(arguments))
    own = {key: given.pop(key, None) for key in _OWN}
    new_run = [*given, *(["out"] if own["out"] else [])]
    given.pop("preset", None)
    if own["resume"] and new_run:
        names = ", ".join(map(_flag, new_run))
        raise ConfigError(f"resume = {own['resume']}: a run goes on as it began; drop {names}")
    if "epsilon" in given and "noise_multiplier" not in given:
        given["noise_multiplier"] = None
    if "noise_multiplier" in given and "epsilon" not in given:
        given["epsilon"] = None
    if "advantage" in given or "tpr_at_fpr" in given:
        given = {"epsilon": None, "noise_multiplier": None, **given}
    asked = ("epsilon", "noise_multiplier", "advantage", "tpr_at_fpr", "twin", "secure", "shard",
             "explain_loss")  # fmt: skip
    idle = [name for name in asked if given.get(name)]
    idle += ["filter"] if given.get("filter", "none") != "none" else []
    if given.get("dp") is False and idle:
        names = ", ".join(map(_flag, idle))
        raise ConfigError(f"dp = False: leaves {names} without effect; drop one or the other")
    if given.get("folds", 1) > 1:
        given.setdefault("validation", "private")
    dataset, default = given.get("dataset"), preset.config.dataset
    if dataset and not kind_of(dataset).takes_presets_of(kind_of(default)):
        raise ConfigError(
            f"dataset = {dataset}: does not fit preset {name}, which is for {default}; choose a "
            "preset of that data (--help lists them)"
        )
    for schedule in ("clip_schedule", "noise_schedule", "rate_schedule"):
        if given.get(schedule, "").startswith("@"):
            given[schedule] = _table(Path(given[schedule][1:]))
    preset = preset.changed(given)
    own |= {"json": bool(own["json"]), "partial": own["partial"] or "refuse"}
    own["timeout"] = TIMEOUT if own["timeout"] is None else own["timeout"]
    if not 0 < own["timeout"] < math.inf:
        raise ConfigError(f"timeout = {own['timeout']:g}: must be a number of seconds > 0")
    return Request(preset=preset, **own)


def _table(path: Path) -> str:
    """The schedule in a file of lines step,factor, written as a flag."""
    try:
        rows = [row.split(",") for row in path.read_text().split() if row.strip()]
        rows = rows[1:] if rows and not rows[0][0].isdigit() else rows  # a header
        return "table:" + ",".join(f"{int(step)}={float(factor)!r}" for step, factor in rows)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"schedule = @{path}: cannot be read ({error}); it needs lines step,factor from step 0"
        ) from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _preset_name(arguments: Sequence[str]) -> str:
    first = Parser("train", ConfigError, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=_DEFAULT)
    name: str = first.parse_known_args(arguments)[0].preset
    if name not in PRESETS:
        raise ConfigError(f"preset = {name}: must be one of {', '.join(PRESETS)}")
    return name


def _parser(preset: Preset) -> argparse.ArgumentParser:
    listing = "\n".join(
        f"  {each.name:17} {each.summary}" for kind in TASKS.values() for each in kind.presets
    )
    parser = Parser(
        "train",
        ConfigError,
        description="Train privately, and prove the ε twice.\n\npresets:\n" + listing,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        epilog=f"Defaults shown are those of {preset.config.preset}; name another --preset for its "
        "own, and for its task's flags. A run leaves runs/NAME with "
        "report.html, statement.txt and privacy.json.",
    )
    where = parser.add_argument_group("where")
    where.add_argument("--data-dir", type=Path, help="the data's folder (default: user cache)")
    where.add_argument("--partial", choices=("refuse", "drop"), help="blocks of a gesture file "
                       "that are no whole recordings (default: refuse)")  # fmt: skip
    where.add_argument("--out", type=Path, help="a new folder for the run (default: runs/NAME)")
    where.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run")
    where.add_argument("--timeout", type=float, metavar="SECONDS", help="under torchrun, a "
                       f"process is given up after so long (default: {TIMEOUT:g})")  # fmt: skip
    where.add_argument("--json", action="store_true", help="progress as JSON lines on stdout")
    config, own = preset.config, type(preset.config.task)
    for group in GROUPS:
        _add(parser.add_argument_group(group.__doc__), group, config)
    _add(parser.add_argument_group(f"{kind_of(config.dataset).what} alone"), own, config.task)
    known = {field.name for field in dataclasses.fields(own)}
    for kind in TASKS.values():  # known, to be refused by the name of the task they are for
        known |= _add(parser, kind.knobs, kind.knobs(), hidden=True, but=known)
    return parser


def _whole_or_word(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _add(
    to: argparse._ActionsContainer,
    group: type,
    defaults: RunConfig | Knobs,
    *,
    hidden: bool = False,
    but: Iterable[str] = (),
) -> set[str]:
    """A flag for each field of a dataclass; returns their names."""
    types = get_type_hints(group)
    fields = [field for field in dataclasses.fields(group) if field.name not in but]
    for field in fields:
        default = getattr(defaults, field.name)
        text = f"{field.metadata['help']} (default: {'none' if default is None else default})"
        options: dict[str, Any] = {"help": argparse.SUPPRESS if hidden else text.replace("%", "%%")}
        if types[field.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = next(iter(get_args(types[field.name])), types[field.name])
            if {int, str} <= set(get_args(types[field.name])):
                options |= {"type": _whole_or_word, "metavar": "INT"}
            options["choices"] = field.metadata.get("choices")
            if field.name == "dataset":
                options["choices"] = tuple(TASKS)
            if "bare" in field.metadata:
                options |= {"nargs": "?", "const": field.metadata["bare"]}
            if not options["choices"] and "metavar" not in options:
                options["metavar"] = options["type"].__name__.upper()
        to.add_argument(_flag(field.name), **options)
    return {field.name for field in fields}
