"""Checkpoints of a model in parts: the file that one process writes, a tensor at a time.

Whoever reads it needs not know how many ranks wrote it. (torch.distributed.checkpoint pickles its
metadata, so it is not used.)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from dpsgd_torch.storage.aliases import KEY
from dpsgd_torch.storage.streamed import Shape, write_tensors
from dpsgd_torch.training.checkpoint import (
    TENSORS,
    finished,
    loaded_state,
    newest_unread,
    optimizer_state,
    started,
)
from dpsgd_torch.training.history import History
from dpsgd_torch.training.shard_units import Cut
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.state import RunState

_Part = tuple[torch.Tensor, Cut | None]  # what a rank holds, and of which parameter it is a part


def save(run: RunState, shards: Shards, charges: int) -> None:
    """Write a checkpoint of what all ranks hold; all take part, and rank 0 writes."""
    more, beside = run.kept.state()
    optimizer, plain = optimizer_state(run.optimizer)
    parts, aliases = _parts_of_model(run, shards)
    parts |= {name: (tensor, _cut_of(name, tensor, shards)) for name, tensor in optimizer.items()}
    parts |= {name: (tensor, None) for name, tensor in more.items()}
    if run.folder is None:
        for _ in _whole(shards, parts):
            pass
        return
    folder = run.folder.checkpoints
    digest = write_tensors(
        started(folder, run.done) / TENSORS,
        {name: _shape(*part) for name, part in parts.items()},
        _whole(shards, parts),
        {KEY: json.dumps(aliases)} if aliases else None,
    )
    state = {"step": run.done, "charges": charges, "tensors": digest, "optimizer": plain}
    state |= {"kept": beside} if beside else {}
    state |= {"attempt": run.attempt} if run.charges.are_open else {}
    finished(folder, run.done, state, run.history)


def load(run: RunState, shards: Shards) -> tuple[int, int, History]:
    """Load the newest checkpoint: the model whole, and of the optimizer what this rank holds.

    Raises:
        RunError: there is none, or the newest is damaged; the newest good one is named.
    """
    world, path, state = run.world, None, dict[str, Any]()
    if run.folder:
        state, path = newest_unread(run.folder.checkpoints)
    state = world.first(lambda: state, "the newest checkpoint")
    shards.make_room()
    model: dict[str, torch.Tensor] = run.model.state_dict(keep_vars=True)
    others = dict[str, torch.Tensor]()
    for name, tensor in _read(run, path):
        if name.startswith("model."):
            model[name.removeprefix("model.")].detach().copy_(tensor)
            continue
        cut = shards.cut_of(name)
        part = cut is not None and tensor.shape == cut.p.shape
        others[name] = tensor.reshape(-1)[cut.of(world.rank)].clone() if cut and part else tensor
    run.kept.load(state.get("kept", {}), others)
    run.kept_in = state.get("attempt")
    run.optimizer.load_state_dict(loaded_state(others, state["optimizer"]))
    return int(state["step"]), int(state["charges"]), History.from_json(state["history"])


def _read(run: RunState, path: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor of the file that rank 0 has, on all ranks."""
    with safe_open(path, "pt") if path else contextlib.nullcontext() as file:
        shapes = run.world.first(lambda: _shapes(file), "what a checkpoint holds")
        for name, kind, shape in shapes:
            tensor = torch.empty(shape, dtype=getattr(torch, kind))
            if file is not None:
                tensor = file.get_tensor(name)
            tensor = tensor.to(run.device)
            run.world.hand_round([tensor])
            yield name, tensor


def _shapes(file: Any) -> list[list[Any]]:
    found = list[list[Any]]()
    for name in file.keys():  # noqa: SIM118  it is no dict
        tensor = file.get_tensor(name)
        found.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
    return found


def _parts_of_model(run: RunState, shards: Shards) -> tuple[dict[str, _Part], dict[str, str]]:
    """Each tensor of the model's state, and for each further name of one the first."""
    held, first, parts = dict(shards.named_parameters()), dict[int, str](), dict[str, _Part]()
    cuts, aliases = {cut.p: cut for cut in shards.all_cuts}, dict[str, str]()
    for name, tensor in run.model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), f"model.{name}")
        cut = cuts.get(tensor)
        if known != f"model.{name}":
            aliases[f"model.{name}"] = known
        elif cut is not None and shards.are_apart:
            parts[known] = held[cut.name].detach(), cut
        else:
            parts[known] = tensor.detach(), None
    return parts, aliases


def _cut_of(name: str, tensor: torch.Tensor, shards: Shards) -> Cut | None:
    """Of which parameter an optimizer's tensor is a part; None: it is whole on every rank."""
    cut = shards.cut_of(name)
    if cut is None or tensor.shape != (cut.length(shards.world.rank),):
        return None
    return cut


def _shape(tensor: torch.Tensor, cut: Cut | None) -> Shape:
    return tensor.dtype, tuple(tensor.shape if cut is None else cut.p.shape)


def _whole(shards: Shards, parts: dict[str, _Part]) -> Iterator[torch.Tensor]:
    """Each tensor whole, on the CPU; those in parts are put together of all ranks'."""
    for tensor, cut in parts.values():
        if cut is None:
            yield tensor.detach().cpu().contiguous()
            continue
        padded = tensor.new_zeros(cut.part)
        padded[: len(tensor)] = tensor
        gathered = shards.world.joined(padded)
        rows = (row[: cut.length(rank)] for rank, row in enumerate(gathered))
        yield torch.cat(list(rows)).view(cut.p.shape).cpu()
