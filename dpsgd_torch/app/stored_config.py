"""A configuration that a folder keeps, which may be anybody's: of known names and right types."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

from accountant import PrivacyError
from dpsgd_torch.app.config import VERSION, RunConfig, is_knob, knob_names
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import RunError, shown
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import kind_of

_LONGEST = 300  # of a reason that quotes one


def read_config(folder: RunFolder, root: int = 0) -> RunConfig:
    """The configuration in config.json; ``root`` stands for a seed, which is not in it.

    Raises:
        RunError: it is none.
    """
    return config_from_json(folder.read_json("config.json"), folder.path / "config.json", root)


def config_from_json(fields: Any, where: Path, seed: int | None) -> RunConfig:
    """What ``RunConfig.to_json`` wrote, with ``seed`` in place of whether there was one.

    * A setting that a later version brought has its default.
    * One that is not known any more is let pass where it asked for nothing (null or false).
    * Version 1 had the tasks' knobs among the rest, those of other tasks too.
    """
    try:
        if not isinstance(fields, dict):
            raise TypeError("it is no object")
        version = fields.get("version", 1)
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(f"version = {shown(version)} is unknown")
        if not isinstance(fields["dataset"], str):
            raise TypeError(f"dataset = {shown(fields['dataset'])} has another type")
        if fields["preset"] not in PRESETS:
            raise ValueError(f"preset = {shown(fields['preset'])} is unknown")
        kind = kind_of(fields["dataset"])
        flat = {n: v for n, v in fields.items() if n not in ("version", "task")}
        if version == 1:
            own: Any = {n: flat[n] for n in knob_names(kind.knobs) if n in flat}
            flat = {n: v for n, v in flat.items() if not is_knob(n)}
        else:
            own = fields["task"]
        knobs, settings = (
            kind.knobs(**_taken(own, kind.knobs, version)),
            _taken(flat, RunConfig, version),
        )
        return RunConfig(**{**settings, "task": knobs, "seed": seed if fields["seed"] else None})
    except (TypeError, KeyError, ValueError, OverflowError, PrivacyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
        raise RunError(
            f"{where}: is not a configuration of this version ({reason}); go on with the version "
            "it began with"
        ) from error


def _taken(given: Any, kind: type, version: int) -> dict[str, Any]:
    """The fields of a dataclass that are in ``given``, by name and type."""
    if not isinstance(given, dict):
        raise TypeError(f"task = {shown(given)} is no object")
    types, taken = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name == "task":
            continue
        if field.name not in given and field.metadata.get("since", 1) > version:
            continue
        value = given[field.name]
        _refuse_type(field.name, value, bool if field.name == "seed" else types[field.name])
        taken[field.name] = value
    for name, value in given.items():
        if name not in types and value not in (None, False):
            raise ValueError(f"{shown(name)} = {shown(value)} is unknown")
    return taken


def refuse_edited(config: RunConfig, kept: Any, where: Path) -> None:
    """Refuse a config.json that is not what the run began with, by the field that differs."""
    began = _flat(config_from_json(kept, where, 0).to_json())
    for name, value in _flat(config.to_json()).items():
        before = began.get(name)
        if before != value:
            raise RunError(
                f"{where}: {name} changed ({shown(before)} → {shown(value)}); resume with what the "
                "run began with, or start a new run"
            )


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in fields.items() if name != "task"}, **fields["task"]}


def _refuse_type(name: str, value: object, kind: Any) -> None:
    kinds = get_args(kind) or (kind,)
    allowed = {float: (float, int), int: (int,), str: (str,), bool: (bool,)}
    fits = any(
        value is None if each is type(None) else type(value) in allowed[each] for each in kinds
    )
    if not fits:
        raise TypeError(f"{name} = {shown(value)} has another type")
