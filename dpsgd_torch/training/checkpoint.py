"""Atomic checkpoints: safetensors and JSON, nothing pickled, the last two kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from dpsgd_torch.errors import RunError
from dpsgd_torch.storage.aliases import KEY, aliases_in, stored_once, tied
from dpsgd_torch.storage.run_folder import sync_folder, write_durably
from dpsgd_torch.storage.sealed import sealed, unsealed
from dpsgd_torch.storage.streamed import digest_of
from dpsgd_torch.training.history import History
from dpsgd_torch.training.kept import Kept
from dpsgd_torch.training.released_state import own_copy, released_tensors

TENSORS = "tensors.safetensors"
T = TypeVar("T")

_KEPT = 2
_DAMAGE = (OSError, ValueError, KeyError, RecursionError)


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    charges: int,
    history: History,
    noise: Mapping[str, torch.Tensor] | None = None,
    kept: Kept | None = None,
    *,
    attempt: int | None = None,
) -> None:
    """Write ``folder/step-N``: complete and on disk, or not there at all.

    ``charges`` is what the ledger held: one that holds fewer later has lost some. ``history`` is
    all that a resumed run knows of the epochs before: it reads no file that was published.
    ``noise`` is what the noise carries from step to step, ``kept`` what else there is to keep.
    ``attempt`` is the one it was written in: samples and noise of no other may follow on it.
    """
    partial = started(folder, step)
    others, plain = optimizer_state(optimizer)
    others |= {f"noise.{name}": tensor for name, tensor in (noise or {}).items()}
    more, beside = (kept or Kept()).state()
    others |= more
    tensors = {name: own_copy(tensor) for name, tensor in others.items()}
    tensors |= {f"model.{name}": tensor for name, tensor in released_tensors(model).items()}
    stored, aliases = stored_once(tensors)
    content = save_tensors(stored, metadata={KEY: json.dumps(aliases)} if aliases else None)
    write_durably(partial / TENSORS, content)
    digest = hashlib.sha256(content).hexdigest()
    state = {"step": step, "charges": charges, "tensors": digest, "optimizer": plain}
    state |= {"kept": beside} if beside else {}
    state |= {} if attempt is None else {"attempt": attempt}
    finished(folder, step, state, history)


def started(folder: Path, step: int) -> Path:
    """An empty folder, for the tensors of a checkpoint that is not there yet."""
    final = _final(folder, step)
    for leftover in (_partial(final), final):  # a repeated step writes the same checkpoint again
        shutil.rmtree(leftover, ignore_errors=True)
    _partial(final).mkdir(parents=True)
    return _partial(final)


def finished(folder: Path, step: int, state: Mapping[str, Any], history: History) -> None:
    """Add to the tensors what is JSON, and have the checkpoint be there."""
    final = _final(folder, step)
    whole = sealed({**state, "history": history.to_json()})
    write_durably(_partial(final) / "state.json", json.dumps(whole).encode())
    os.rename(_partial(final), final)
    sync_folder(folder)
    for old in _checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)


def _final(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    noise: dict[str, torch.Tensor] | None = None,
    kept: Kept | None = None,
) -> tuple[int, int, History]:
    """Load the newest checkpoint into model, optimizer, the noise's state and what else is kept.

    Returns:
        Steps, charges and history then.

    Raises:
        RunError: there is none, or the newest is damaged; the newest good one is named.
    """
    state, content = read_newest(folder)
    return put_back(state, content, model, optimizer, noise, kept)


def read_newest(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The newest checkpoint: JSON, and the file of its tensors.

    Raises:
        RunError: there is none, or the newest is damaged; the newest good one is named.
    """
    return _newest(folder, _read)


def newest_unread(folder: Path) -> tuple[dict[str, Any], Path]:
    """The same, with the file of its tensors where it is: its digest was compared.

    Raises:
        RunError: there is none, or the newest is damaged; the newest good one is named.
    """
    return _newest(folder, _looked_at)


def _newest(
    folder: Path, read: Callable[[Path], tuple[dict[str, Any], T]]
) -> tuple[dict[str, Any], T]:
    found = _checkpoints(folder)
    if not found:
        raise RunError(f"{folder}: holds no checkpoint to resume from; start a new run")
    try:
        return read(found[-1])
    except _DAMAGE as error:
        good = [path.name for path in found[:-1] if _is_good(path)]
        move = (
            f"the previous good one is {good[-1]}: delete {found[-1].name} to go on from there "
            "(its steps are repeated, and charged again only if drawn afresh)"
            if good
            else "no good one is left before it: start a new run"
        )
        raise RunError(f"checkpoint {found[-1]}: damaged ({error}); {move}") from error


def put_back(
    state: dict[str, Any],
    content: bytes,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    noise: dict[str, torch.Tensor] | None = None,
    kept: Kept | None = None,
) -> tuple[int, int, History]:
    """Load what ``read_newest`` read; returns steps, charges and history then."""
    tensors = tied(load_tensors(content), aliases_in(content))
    weights = {k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")}
    # what is kept goes first: whatever it writes elsewhere as it is loaded does not stay
    (kept or Kept()).load(state.get("kept", {}), tensors)
    model.load_state_dict(weights)
    optimizer.load_state_dict(loaded_state(tensors, state["optimizer"]))
    if noise is not None:
        noise.clear()
        noise |= {k.removeprefix("noise."): t for k, t in tensors.items() if k.startswith("noise.")}
    return int(state["step"]), int(state["charges"]), History.from_json(state["history"])


def has_trained(folder: Path) -> bool:
    """Whether there is a checkpoint of a step that was taken."""
    return any(path.name != "step-00000000" for path in _checkpoints(folder))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    state = unsealed(json.loads((path / "state.json").read_text()))
    content = (path / TENSORS).read_bytes()
    _refuse_other(hashlib.sha256(content).hexdigest(), state)
    tied(load_tensors(content), aliases_in(content))
    return state, content


def _looked_at(path: Path) -> tuple[dict[str, Any], Path]:
    state, tensors = unsealed(json.loads((path / "state.json").read_text())), path / TENSORS
    _refuse_other(digest_of(tensors), state)
    return state, tensors


def _refuse_other(digest: str, state: Mapping[str, Any]) -> None:
    if digest != state["tensors"]:
        raise ValueError("its sha256 is not the one recorded")


def _is_good(path: Path) -> bool:
    try:
        _looked_at(path)
    except _DAMAGE:
        return False
    return True


def optimizer_state(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by name, and the rest, which must be JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {"groups": state["param_groups"], "state": {}}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain["state"].setdefault(str(index), {})[name] = value
    return tensors, plain


def loaded_state(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    """``optimizer_state``'s two parts, as ``load_state_dict`` takes them."""
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in plain["state"].items()}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    return {"state": state, "param_groups": plain["groups"]}
