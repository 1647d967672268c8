"""A configuration that a folder keeps, which may be anybody's: of known names and right types."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

from accountant import PrivacyError
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import RunError, shown
from dpsgd_torch.storage.run_folder import RunFolder

_LONGEST = 300  # of a reason that quotes one


def read_config(folder: RunFolder, root: int = 0) -> RunConfig:
    """The configuration in config.json; ``root`` stands for a seed, which is not in it.

    Raises:
        RunError: it is none.
    """
    return config_from_json(folder.read_json("config.json"), folder.path / "config.json", root)


def config_from_json(fields: Any, where: Path, seed: int | None) -> RunConfig:
    """What ``RunConfig.to_json`` wrote, with ``seed`` in place of whether there was one."""
    try:
        if not isinstance(fields, dict):
            raise TypeError("it is no object")
        for name, kind in get_type_hints(RunConfig).items():
            _refuse_type(name, fields[name], bool if name == "seed" else kind)
        if fields["preset"] not in PRESETS:
            raise ValueError(f"preset = {shown(fields['preset'])} is unknown")
        return RunConfig(**{**fields, "seed": seed if fields["seed"] else None})
    except (TypeError, KeyError, ValueError, OverflowError, PrivacyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
        raise RunError(
            f"{where}: is not a configuration of this version ({reason}); go on with the version "
            "it began with"
        ) from error


def refuse_edited(config: RunConfig, kept: Any, where: Path) -> None:
    """Refuse a config.json that is not what the run began with, by the field that differs."""
    for name, value in config.to_json().items():
        before = kept.get(name) if isinstance(kept, dict) else None
        if before != value:
            raise RunError(
                f"{where}: {name} changed ({shown(before)} → {shown(value)}); resume with what the "
                "run began with, or start a new run"
            )


def _refuse_type(name: str, value: object, kind: Any) -> None:
    kinds = get_args(kind) or (kind,)
    allowed = {float: (float, int), int: (int,), str: (str,), bool: (bool,)}
    fits = any(
        value is None if each is type(None) else type(value) in allowed[each] for each in kinds
    )
    if not fits:
        raise TypeError(f"{name} = {shown(value)} has another type")
