"""Every example is an island: models that mix examples are refused before anything is charged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from dpsgd_torch.errors import ModelError
from dpsgd_torch.training.losses import Loss
from dpsgd_torch.training.steps import backward


def replace_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every batch norm by a group norm of as many channels, in place.

    Group norm looks at one example at a time. Groups hold 16 channels where that divides.

    >>> replace_batchnorm(nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32)))[1]
    GroupNorm(2, 32, eps=1e-05, affine=True, bias=True)
    """
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            channels = child.num_features
            groups = channels // 16 if channels % 16 == 0 else 1
            setattr(model, name, nn.GroupNorm(groups, channels, eps=child.eps))
        else:
            replace_batchnorm(child)
    return model


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuse layers with batch statistics, also frozen or affine-free, by name."""
    for name, module in model.named_modules():
        running = isinstance(module, _NormBase) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise ModelError(
                f"layer {name or 'model'} = {type(module).__name__}: batch statistics mix examples "
                "and no clip bounds them; call dpsgd_torch.replace_batchnorm(model) first"
            )


def refuse_unreachable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The optimizer must hold the model's trainable parameters, all of them and no other."""
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ModelError("model: has no trainable parameter; set requires_grad on what to train")
    for p, name in trainable.items():
        if p.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"parameter {name}: is {p.dtype}, in which neither clip nor noise is exact enough; "
                "train in float32 and convert afterwards"
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


def probe(
    model: GradSampleModule, loss: Loss, data: Sequence[torch.Tensor], generator: torch.Generator
) -> None:
    """Two runs on made-up examples: the first one's gradient must not feel the second's values.

    Uses shapes and dtypes of ``data`` but none of its values. Refuses parameters that the loss
    does not reach, a loss that is not per example, anything that mixes examples, and buffers that
    training rewrites: they would carry un-noised traces of the data into the saved model.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    one, two = _made_up(data, generator), _made_up(data, generator)
    mixed = [torch.cat([a[:1], b[1:]]) for a, b in zip(one, two, strict=True)]
    first = [_first_gradient(model, loss, batch) for batch in (one, mixed)]
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            buffer.copy_(buffers[name])
            raise ModelError(
                f"buffer {name.removeprefix('_module.')}: changes in a forward pass in training "
                "mode, and no noise covers it; freeze it or keep it out of the model"
            )
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        name = name.removeprefix("_module.")
        a, b = (gradient[p] for gradient in first)
        if a is None or b is None:
            raise ModelError(
                f"parameter {name}: the loss does not reach it, so it has no gradient; "
                "use it in forward or set requires_grad_(False)"
            )
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-6 + 1e-4 * float(a.abs().max())):
            raise ModelError(
                f"parameter {name}: one example's gradient changes with another example; "
                "remove what works across the batch (statistics, attention, contrastive terms)"
            )


def _first_gradient(
    model: GradSampleModule, loss: Loss, batch: list[torch.Tensor]
) -> dict[nn.Parameter, torch.Tensor | None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backward(model, loss, batch[0], batch[1])
    gradients: dict[nn.Parameter, torch.Tensor | None] = {}
    for p in model.parameters():
        sample = getattr(p, "grad_sample", None)
        gradients[p] = None if sample is None else sample[0].clone()
        p.grad_sample = None
        p.grad = None
    return gradients


def _made_up(data: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    batch = []
    for tensor in data:
        shape = (2, *tensor.shape[1:])
        if tensor.is_floating_point():
            made = torch.rand(shape, generator=generator, dtype=tensor.dtype)
        else:
            made = torch.randint(2, shape, generator=generator).to(tensor.dtype)
        batch.append(made.to(tensor.device))
    return batch
