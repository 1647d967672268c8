"""Batch norms out, group norms in: what a layer was trained to is kept, what mixes is not."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy

from dpsgd_torch.errors import ModelError

_AFFINE = {"weight", "bias"}
_AFTER = ("drop", "act")  # what a norm with its activation in one applies to its output, in order
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def replace_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every batch norm by a group norm of as many channels, in place.

    * Group norm looks at one example at a time. Groups hold 16 channels where that divides.
    * Weight and bias are the same parameters as before: trained values, dtype, device,
      ``requires_grad`` and an optimizer that holds them stay; none is added where none was.
    * A layer used in several places stays one layer. Training or evaluation mode stays.
    * A batch norm that is its activation as well (``drop`` and ``act`` inside it, as timm builds
      them) becomes a group norm with the same, under the same names.
    * Instance norms stay and stop tracking statistics, so that they evaluate as they train.

    Returns:
        ``model``; where that is itself a batch norm, the group norm that takes its place.

    Raises:
        ModelError: a norm that is not only a norm (its class has a forward of its own; parameters,
            hooks or layers were added to it), or has not seen its number of channels yet. Nothing
            is replaced then.

    >>> replace_batchnorm(nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32)))[1].num_groups
    2
    """
    norms = [(name, module) for name, module in model.named_modules() if _is_norm(module)]
    for name, norm in norms:
        _refuse_more_than_a_norm(name or "model", norm)
    replaced: dict[nn.Module, nn.Module] = {
        norm: _group_norm(norm) for _, norm in norms if isinstance(norm, _BatchNorm)
    }
    for _, norm in norms:
        if isinstance(norm, _NormBase) and norm not in replaced:
            _forget_statistics(norm)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in replaced:
                setattr(parent, name, replaced[child])
    return replaced.get(model, model)


class GroupNormAct(nn.GroupNorm):
    """Group norm and activation in one: ``drop`` and ``act`` are applied to what is normalised."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.act(self.drop(super().forward(input)))
        return output


def _is_norm(module: nn.Module) -> bool:
    """One that keeps or uses what it saw of other examples."""
    return isinstance(module, _BatchNorm) or (
        isinstance(module, _NormBase) and module.track_running_stats
    )


def _refuse_more_than_a_norm(name: str, norm: nn.Module) -> None:
    layer = f"layer {name} = {type(norm).__name__}"
    if any(is_lazy(p) for p in [*norm.parameters(), *norm.buffers()]):
        raise ModelError(
            f"{layer}: does not know its number of channels yet; pass made-up inputs through the "
            "model first"
        )
    if not isinstance(norm, _BatchNorm):
        return  # stays where it is
    if _is_norm_then_act(norm):
        return
    added = {*dict(norm.named_parameters()), *dict(norm.named_children())} - _AFFINE
    added |= set(dict(norm.named_buffers())) - set(_STATISTICS)
    hooks = any(held for key, held in vars(norm).items() if key.endswith("_hooks"))
    plain = {_BatchNorm.forward, nn.SyncBatchNorm.forward}
    if added or hooks or type(norm).forward not in plain or "forward" in vars(norm):
        what = f"has {', '.join(sorted(added))}" if added else "has hooks"
        if not (added or hooks):
            what = "has a forward of its own"
        raise ModelError(
            f"{layer}: {what}, which a group norm would not do; take that off "
            "(torch.nn.utils.parametrize.remove_parametrizations, handle.remove()), or replace "
            "the layer by hand"
        )


def _is_norm_then_act(norm: Any) -> bool:
    """Whether it is a batch norm, ``drop`` and ``act`` in a row, and nothing else: it is run."""
    added = {*dict(norm.named_parameters(recurse=False))} - _AFFINE
    added |= set(dict(norm.named_buffers(recurse=False))) - set(_STATISTICS)
    hooks = any(held for key, held in vars(norm).items() if key.endswith("_hooks"))
    if added or hooks or {*dict(norm.named_children())} != {*_AFTER} or norm.running_mean is None:
        return False
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            twin = copy.deepcopy(norm).double().cpu().eval()
            for tensor in (twin.running_mean, twin.running_var, *twin.parameters(recurse=False)):
                tensor.copy_(torch.linspace(0.5, 2, len(tensor)))  # at 0 and 1 a norm does nothing
            x = torch.linspace(-3, 3, 18 * norm.num_features, dtype=torch.float64)
            x = x.view(2, norm.num_features, 3, 3)
            statistics = twin.running_mean, twin.running_var
            plain = functional.batch_norm(x, *statistics, twin.weight, twin.bias, eps=twin.eps)
            return torch.allclose(twin(x), twin.act(twin.drop(plain)))
        except Exception:  # whatever their code raises: then it is not known to be that
            return False


def _group_norm(norm: Any) -> nn.GroupNorm:
    channels = norm.num_features
    groups = channels // 16 if channels % 16 == 0 else 1
    kind = GroupNormAct if dict(norm.named_children()) else nn.GroupNorm
    result = kind(groups, channels, eps=norm.eps, affine=False).train(norm.training)
    for name in _AFTER if kind is GroupNormAct else ():
        setattr(result, name, getattr(norm, name))
    result.affine = norm.affine
    result.weight, result.bias = norm.weight, norm.bias
    return result


def _forget_statistics(norm: _NormBase) -> None:
    norm.track_running_stats = False
    for name in _STATISTICS:
        setattr(norm, name, None)
