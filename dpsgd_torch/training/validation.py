"""Every example is an island: models that mix examples are refused before anything is charged."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from dpsgd_torch.errors import ModelError, told
from dpsgd_torch.training.losses import Loss
from dpsgd_torch.training.vectors import PerExample

Gradients = list[torch.Tensor]


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuse layers with batch statistics, also frozen or affine-free, by name."""
    for name, module in model.named_modules():
        running = isinstance(module, _NormBase) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise ModelError(
                f"layer {name or 'model'} = {type(module).__name__}: batch statistics mix examples "
                "and no clip bounds them; call dpsgd_torch.replace_batchnorm(model) first"
            )


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
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ModelError(
            f"optimizer {type(optimizer).__name__}: evaluates the loss more than once a step, "
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


def probe(
    model: nn.Module,
    gradients: PerExample,
    loss: Loss,
    data: Sequence[torch.Tensor],
    size: int,
) -> None:
    """Pairs of runs on made-up examples: no example's gradient may feel what the others hold.

    Uses shapes and dtypes of ``data`` but none of its values, in batches of 2, 5 and ``size``.
    Refuses parameters that the loss does not reach, a loss that is not per example, what mixes
    examples, and buffers that training rewrites: they would carry un-noised traces of the data
    into the saved model. What shows only on some data can pass: it is a net, not a proof.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    generator = torch.Generator().manual_seed(0)
    for count in sorted({2, 5, size}):
        for kept in {0, count // 2, count - 1} & set(range(count)):
            one = _made_up(data, count, generator, scale=1.0)
            other = _made_up(data, count, generator, scale=10.0)
            for a, b in zip(one, other, strict=True):
                b[kept] = a[kept]
            first, second = (
                _gradient_of(model, gradients, loss, batch, kept) for batch in (one, other)
            )
            _compare(model, first, second)
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            buffer.copy_(buffers[name])
            raise ModelError(
                f"buffer {name}: changes in a forward pass in training "
                "mode, and no noise covers it; freeze it or keep it out of the model"
            )


def _compare(model: nn.Module, first: Gradients, second: Gradients) -> None:
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    for name, a, b in zip(trainable, first, second, strict=True):
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-6 + 1e-4 * float(a.abs().max())):
            raise ModelError(
                f"parameter {name}: one example's gradient changes with another example; "
                "remove what works across the batch (statistics, attention, contrastive terms)"
            )


def _gradient_of(
    model: nn.Module, gradients: PerExample, loss: Loss, batch: list[torch.Tensor], kept: int
) -> Gradients:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            gradients.backward(loss, batch[0], batch[1])
        except ModelError:
            raise
        except Exception as error:  # whatever a foreign layer raises, on data made like the user's
            raise ModelError(
                f"model: a pass over {len(batch[0])} made-up examples of the data's shape failed "
                f"({told(error)}); check shapes and dtypes of inputs and "
                "targets; replace recurrent and attention layers by those of opacus.layers"
            ).with_traceback(error.__traceback__) from None
    kept_gradient = gradients.vectors(trainable_parameters(model)).vector(kept)
    for p in model.parameters():
        p.grad = None
    return kept_gradient


def _made_up(
    data: Sequence[torch.Tensor], count: int, generator: torch.Generator, scale: float
) -> list[torch.Tensor]:
    batch = []
    for tensor in data:
        shape = (count, *tensor.shape[1:])
        if tensor.is_floating_point():
            made = scale * torch.rand(shape, generator=generator, dtype=tensor.dtype)
        else:
            made = torch.randint(2, shape, generator=generator).to(tensor.dtype)
        batch.append(made.to(tensor.device))
    return batch
