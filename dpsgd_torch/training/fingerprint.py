"""What a resumed run must share with the run it resumes, and what repeating a step takes."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Piece
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.compiled.compiler import compiler
from dpsgd_torch.privacy.opacus_alone import opacus_alone
from dpsgd_torch.training.described import described
from dpsgd_torch.training.optimizers import name_of
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.views import ONE_VIEW

CODE_CONTRACT = 2  # raised whenever the order or meaning of a run's random draws changes


def contract(run: RunState) -> dict[str, Any]:
    """What was asked for, part by part, JSON throughout.

    A calibrated noise is not in it: another machine may calibrate to another last digit.
    """
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        for group in run.optimizer.state_dict()["param_groups"]
    ]
    kept = run.steering.held_out
    pieces: list[Iterable[Piece]] = [run.data.fingerprint()]
    if kept:
        pieces += [kept.data.fingerprint(), map(_bytes, (kept.units.order, kept.units.counts))]
    parts = {
        "code": CODE_CONTRACT,
        "data": hashed(itertools.chain.from_iterable(pieces)) + run.unit_digest,
        "model": str(run.model) + _frozen(run.modes.frozen),
        "loss": described(run.given_loss),
        "optimizer": [name_of(run.optimizer), groups],
        "sampling": run.sampling.to_json(),
        "privacy": run.privacy.to_json() if run.privacy else None,
        "physical batch size": run.physical_batch_size,
        "gradients": run.method.kind,
        "steering": run.steering.to_json(),
    }
    if run.precision.is_mixed:
        parts["precision"] = str(run.precision)
    if run.views != ONE_VIEW:
        parts["views"] = [run.views.count, described(run.views.augment)]
    if run.kept:
        parts["kept"] = run.kept.to_json()
    return dict(json.loads(json.dumps(parts, default=float)))


def _frozen(paths: list[str]) -> str:
    return f" in evaluation mode: {', '.join(paths)}" if paths else ""


def refuse_changed(was: Mapping[str, Any], now: Mapping[str, Any], run: object) -> None:
    """Refuse to resume where any part differs, by its name."""
    for name in now:
        before, after = was.get(name), now[name]
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            keys = [key for key in after if before.get(key) != after[key]]
            before, after = ({key: part.get(key) for key in keys} for part in (before, after))
        before, after = (" ".join(str(part).split()) for part in (before, after))
        raise RunError(
            f"run {run}: its {name} changed ({before} → {after}); resume with what it began with, "
            "or start a new run"
        )


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """sha256 of the tensors' bytes."""
    return hashed(map(raw_bytes, tensors))


def hashed(pieces: Iterable[Piece]) -> str:
    """sha256 of the pieces in a row."""
    result = hashlib.sha256()
    for piece in pieces:
        result.update(piece)
    return result.hexdigest()


def _bytes(rows: Indices) -> Piece:
    return rows.tobytes()


def environment(device: torch.device, gradients: str = "opacus") -> str:
    """What must be the same for a step to repeat bit for bit; ``gradients`` is their kind."""
    parts = [device.type, platform.machine(), torch.backends.cpu.get_cpu_capability()]
    parts += [f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"]
    parts += [f"numpy {np.__version__}", f"opacus {opacus_alone('version').__version__}"]
    parts += ["float64 noise"]
    parts += ["gradients off the graph"] if gradients == "graph" else []  # older runs had others
    parts += [f"compiled by {compiler()}"] if gradients == "compiled" else []
    if device.type == "cuda":
        parts += [torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}"]
        parts += [f"cuDNN {torch.backends.cudnn.version()}"]
    return ", ".join(parts)


def told_to_repeat() -> bool:
    """Whether torch was told to fail rather than do what it could not repeat bit for bit.

    Where it does not all the same, the weights that a repeated step leaves are not those on record:
    the run stops there, and pays for that step anew when it is resumed once more.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    return strict and not torch.is_deterministic_algorithms_warn_only_enabled()
