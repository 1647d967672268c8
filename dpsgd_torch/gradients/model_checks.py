"""Every example is an island: models that mix examples are refused before anything is charged."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dpsgd_torch.errors import ModelError, told
from dpsgd_torch.gradients.capture import described


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuse layers with batch statistics, with frozen weights or none as well, by name.

    In evaluation mode a layer uses the statistics it has, if it has any, and mixes nothing.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _NormBase):
            continue
        kept = module.running_mean is not None and module.running_var is not None
        running = isinstance(module, _BatchNorm) or module.track_running_stats
        if running and (module.training or not kept):
            frozen = ", or freeze it by its eval() in a model in training mode" if kept else ""
            raise ModelError(
                f"layer {name or 'model'} = {type(module).__name__}: batch statistics mix examples "
                f"and no clip bounds them; call dpsgd_torch.replace_batchnorm(model) first{frozen}"
            )


def refuse_without_float64(device: torch.device) -> None:
    """Refuse a device that cannot keep sums and noise in float64."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            f"device = {device}: has no float64 ({told(error)}), in which sums and noise are kept; "
            "train on 'cpu' or 'cuda'"
        ) from error


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What there is to train; refuses a model with nothing."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ModelError("model: has no trainable parameter; set requires_grad on what to train")
    return trainable


def refuse_unreachable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The optimizer must hold the model's trainable parameters, all of them and no other."""
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    for p, name in trainable.items():
        if p.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"parameter {name}: is {p.dtype}, in which neither clip nor noise is exact enough; "
                "train in float32 and convert afterwards"
            )
    for part in getattr(optimizer, "parts", [optimizer]):
        closure = inspect.signature(part.step).parameters.get("closure")
        if closure is None or closure.default is not inspect.Parameter.empty:
            continue
        raise ModelError(
            f"optimizer {type(part).__name__}: evaluates the loss more than once a step, "
            "which one release does not pay for; use SGD, Adam or the like"
        )
    held = {p for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for p, name in trainable.items() if p not in held]:
        raise ModelError(
            f"parameters {', '.join(missing)}: trainable but not in the optimizer; "
            "pass optimizer=… all of model.parameters(), or set requires_grad_(False)"
        )
    if held - set(trainable):
        raise ModelError(
            f"optimizer: holds {len(held - set(trainable))} parameter(s), frozen or not the "
            "model's; build it from the trainable parameters of this model"
        )


def refuse_by_name(model: nn.Module) -> None:
    """Refuse layers whose forward pass writes what is released, or hides what is trained."""
    for path, module in model.named_modules():
        if lazy := [n for n, p in module.named_parameters(recurse=False) if is_lazy(p)]:
            raise ModelError(
                f"{described(path, module)}: {lazy[0]} has no shape yet; run one example through "
                "the model before it is handed over"
            )
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad and (p._backward_hooks or p._post_accumulate_grad_hooks):
                raise ModelError(
                    f"{described(path, module)}: {name} has a hook on its gradient, which is never "
                    "called: no gradient of the batch is made, only each example's; change p.grad "
                    "after the noise, in optimizer.register_step_pre_hook, and remove this one"
                )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ModelError(
                f"{described(path, module)}: max_norm={module.max_norm} shrinks the rows that are "
                "looked up, a trace of the data that no noise covers; set it to None"
            )
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                raise ModelError(
                    f"{described(path, module)}: torch.nn.utils.weight_norm computes its weight "
                    "anew in a hook, so there is no parameter to take gradients of; use "
                    "torch.nn.utils.parametrizations.weight_norm or dpsgd_torch.WeightNormLinear"
                )
            if isinstance(hook, SpectralNorm | BasePruningMethod):
                raise ModelError(
                    f"{described(path, module)}: {type(hook).__name__} computes its weight anew in "
                    "a hook, so there is no parameter to take gradients of; take it off "
                    "(torch.nn.utils.remove_spectral_norm, torch.nn.utils.prune.remove)"
                )
