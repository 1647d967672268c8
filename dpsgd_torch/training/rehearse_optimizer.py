"""The optimizer, tried on copies before the first charge: a step, and what a checkpoint holds."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.training.checkpoint import loaded_state, optimizer_state
from dpsgd_torch.training.movement import refuse_unmoved
from dpsgd_torch.training.optimizers import parts_of
from dpsgd_torch.training.released_state import Watched, own_copy


def try_optimizer(model: Watched, optimizer: torch.optim.Optimizer, *, kept: bool) -> None:
    """A step of a copy on copies of the parameters; one that cannot be copied goes untried.

    Args:
        kept: whether its state goes into checkpoints; then it is written and read once.

    Raises:
        ModelError: the step fails, or does not move a parameter, from 0 either; no file can hold
            what it leaves.
    """
    for part in parts_of(optimizer):
        copies, twin = _stepped(part, zero=False)
        if twin is None:
            continue
        if kept:
            _try_keeping(twin)
        if any(torch.equal(p, copied) for p, copied in copies.items()):
            refuse_unmoved(_stepped(part, zero=True)[0], part, model)


def _try_keeping(twin: torch.optim.Optimizer) -> None:
    for group in twin.param_groups:
        group["lr"] = float(group["lr"])  # as it is set before each step
    state = twin.state_dict()
    rests = {f"group {k}": group for k, group in enumerate(state["param_groups"])}
    rests |= {f"state of parameter {k}": held for k, held in state["state"].items()}
    for where, values in rests.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if not _fits(value, tensor=where.startswith("state")):
                raise ModelError(
                    f"optimizer {type(twin).__name__}: {where}: {name} = {type(value).__name__}: "
                    "no checkpoint can hold it; keep it as a tensor of the state, a number or text"
                    ", or train without run_dir; nothing was charged"
                )
    hint = "; its state must be tensors and numbers by parameter"
    with blamed(f"optimizer {type(twin).__name__}: its state, kept and loaded", hint=hint):
        tensors, plain = optimizer_state(twin)
        read = load_tensors(save_tensors({key: own_copy(held) for key, held in tensors.items()}))
        twin.load_state_dict(loaded_state(read, json.loads(json.dumps(plain))))


def _fits(value: Any, *, tensor: bool) -> bool:
    """Whether a tensor, or else JSON, holds it."""
    if isinstance(value, torch.Tensor):
        return tensor and value.layout == torch.strided
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _stepped(
    optimizer: torch.optim.Optimizer, *, zero: bool
) -> tuple[dict[nn.Parameter, nn.Parameter], torch.optim.Optimizer | None]:
    """What a step by small gradients makes of copies; from zeros, by gradients of 1."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    copies = {id(p): nn.Parameter(p.detach().clone(), p.requires_grad) for p in held}
    twin = object.__new__(type(optimizer))
    try:
        # not copy.deepcopy(optimizer), which leaves out what a subclass keeps beside its state
        twin.__dict__.update(copy.deepcopy(optimizer.__dict__, dict(copies)))
    except Exception:
        return {}, None
    twin.__dict__["_optimizer_step_pre_hooks"] = OrderedDict()
    twin.__dict__["_optimizer_step_post_hooks"] = OrderedDict()
    for group in twin.param_groups:
        group["lr"] = group["lr"] or group.get("initial_lr", 0.0)  # where a warm-up begins at 0
    for p in copies.values():
        if zero:
            p.data.zero_()
        size = 1.0 if zero else 1e-3
        p.grad = torch.full_like(p, size, memory_format=torch.contiguous_format)
    with blamed(f"optimizer {type(optimizer).__name__}: a step on copies of the parameters"):
        type(optimizer).step(twin)  # the class's own: a scheduler wraps the instance's
    return {p: copies[id(p)] for p in held}, twin
