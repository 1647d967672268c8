"""Losses as one number per example, so that no example weighs on another's gradient."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from dpsgd_torch.data.trees import Tree, first, length, taken
from dpsgd_torch.errors import ModelError, TrainingError, told

Loss = Callable[[Any, Tree], torch.Tensor]


def per_example(loss: Loss, what: str = "loss") -> Loss:
    """``loss`` with its reduction over examples taken away: (outputs, targets) → (n,) values.

    The step adds up what examples contribute and divides by the declared batch size, so a loss
    says only what one example's is, and its options mean:

    * ``reduction``: "mean" and "none" average the values within an example (its pixels, labels,
      tokens); "sum" and "batchmean" add them up.
    * ``weight`` of classes, ``pos_weight``: factors. torch's weighted mean also divides by the
      weights of the whole batch, with which one example would scale every other's gradient before
      the clip; here the gradient is larger or smaller by that one number, and the classes are
      weighed against each other as asked.
    * ``ignore_index``: targets that an example's average leaves out; where it has no others, 0.
    * ``label_smoothing`` and the rest: as in torch.

    Whatever the model returns is handed to the loss; for a tuple or a dictionary write one that
    takes it apart, or use those of ``dpsgd_torch.losses``. A loss is tried on one example and on
    two before its first use: what sets examples against each other, needs company or keeps
    something between calls is refused.

    Args:
        loss: a module with a ``reduction`` attribute, a function with a ``reduction`` argument,
            or any function that already returns one value (or one row) per example.
        what: what messages call it; a metric or a score is held to the same.

    Raises:
        ModelError: by what is returned, when called.

    >>> outputs, targets = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    >>> per_example(nn.CrossEntropyLoss())(outputs, targets)
    tensor([0.6931, 0.6931, 0.6931])
    >>> per_example(nn.CrossEntropyLoss(weight=torch.tensor([10.0, 1.0])))(outputs, targets)
    tensor([6.9315, 0.6931, 0.6931])
    """
    if isinstance(loss, type):
        raise ModelError(f"{what} = {loss.__name__}: is a class; pass {loss.__name__}()")
    reduction, ignored = option(loss, "reduction"), option(loss, "ignore_index")
    unreduced, name, tried = loss, f"{what} {_name(loss)}", set[Any]()
    if isinstance(reduction, str) and isinstance(loss, nn.Module):
        unreduced = copy.copy(loss)
        setattr(unreduced, "reduction", "none")  # noqa: B010 (its type says Tensor | Module)
    elif reduction is not None and not isinstance(loss, nn.Module):
        unreduced = functools.partial(loss, reduction="none")  # type: ignore[call-arg]

    def values(outputs: Any, targets: Tree) -> torch.Tensor:
        if isinstance(outputs, torch.Tensor) and length(targets):
            _refuse_other_rows(outputs, targets)
        if length(targets) and (shapes := _shapes(outputs, targets)) not in tried:
            _try(unreduced, name, outputs, targets)
            tried.add(shapes)
        result = _called(unreduced, name, outputs, targets)
        if result.ndim == 1:
            return result
        if reduction in ("sum", "batchmean"):
            return result.flatten(1).sum(1)
        token_wise = isinstance(targets, torch.Tensor) and result.shape == targets.shape
        if isinstance(ignored, int) and token_wise:
            kept = (targets != ignored).flatten(1).sum(1)
            return result.flatten(1).sum(1) / kept.clamp(min=1)
        return result.flatten(1).mean(1)

    return values


def option(loss: Loss, name: str) -> Any:
    """An attribute of a module, an argument's default of a function; None where it has none."""
    if isinstance(loss, nn.Module):
        return getattr(loss, name, None)
    try:
        given = inspect.signature(loss).parameters.get(name)
    except ValueError:  # some built-in functions do not tell
        return None
    return None if given is None else given.default


def _name(loss: Any) -> str:
    loss = loss.func if isinstance(loss, functools.partial) else loss
    return getattr(loss, "__name__", type(loss).__name__)


def _shapes(outputs: Any, targets: Tree) -> tuple[Any, ...]:
    """What tells one kind of batch from another, whatever its length."""
    return tuple(
        leaf.shape[1:] if isinstance(leaf, torch.Tensor) else type(leaf)
        for leaf in tree_leaves((outputs, targets))
    )


def _refuse_other_rows(outputs: torch.Tensor, targets: Tree) -> None:
    if outputs.shape[:1] != first(targets).shape[:1]:
        raise ModelError(
            f"model: gives outputs {_shape(outputs)} and targets are {_shape(targets)}, where each "
            f"of the {length(targets)} examples must have its row of outputs; keep the first "
            "dimension in forward"
        )


def _called(loss: Loss, name: str, outputs: Any, targets: Tree) -> torch.Tensor:
    """One value or more for each example, or refused with the shapes of what it was given."""
    given = f"outputs {_shape(outputs)} and targets {_shape(targets)}"
    try:
        result: Any = loss(outputs, targets)
    except TrainingError:
        raise
    except Exception as error:  # whatever a foreign loss raises
        move = (
            "check their shapes, dtypes and range (classes count from 0)"
            if isinstance(outputs, torch.Tensor)
            else "the model does not return one tensor: pass a loss that takes its outputs apart, "
            "as those of dpsgd_torch.losses take outputs.logits"
        )
        raise ModelError(f"{name}: fails on {given} ({told(error)}); {move}").with_traceback(
            error.__traceback__
        ) from None
    if not isinstance(result, torch.Tensor):
        raise ModelError(
            f"{name}: returns {type(result).__name__} for {given}; must return a tensor of "
            "one value per example"
        )
    if result.ndim == 0:
        raise ModelError(
            f"{name}: returns shape () for {given}: must be one value per example, since a mean "
            "over the batch mixes examples and no clip bounds one of them; return it unreduced "
            "(reduction='none'); in place of a model's own outputs.loss use one of "
            "dpsgd_torch.losses, such as classification or causal_lm"
        )
    if len(result) != length(targets) or not result[:1].numel():
        raise ModelError(
            f"{name}: returns shape {tuple(result.shape)} for {given}: must be one value per "
            "example; return it unreduced (reduction='none')"
        )
    return result if result.is_floating_point() else result.to(torch.get_default_dtype())


def _try(loss: Loss, name: str, outputs: Any, targets: Tree) -> None:
    """One example and two must give values of one shape, and leave the loss as it was.

    Two rows of outputs against two targets that broadcast give four values, and not two. Of
    several outputs, those are cut whose first dimension may be the examples; what a loss cannot
    take then, it may still take whole.
    """
    before = _kept(loss)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # the call itself may warn
        shapes = []
        for count in (1, 2):
            rows = torch.arange(count, device=first(targets).device) % length(targets)
            some = _rows(outputs, rows, length(targets))
            try:
                result = _called(loss, name, some, taken(targets, rows))
            except ModelError:
                if isinstance(outputs, torch.Tensor):
                    raise
                _called(loss, name, outputs, targets)
            else:
                shapes.append(tuple(result.shape[1:]))
    if len(set(shapes)) > 1:
        raise ModelError(
            f"{name}: sets each example's outputs against every other's targets (outputs "
            f"{_shape(outputs)}, targets {_shape(targets)}); give both the same shape: "
            "unsqueeze(1) the one, or squeeze(1) the other"
        )
    after = _kept(loss)
    if changed := [key for key, value in before.items() if not _same(value, after.get(key))]:
        raise ModelError(
            f"{name}: changes its {changed[0]} when called, and no noise covers what it keeps "
            "of the records; keep nothing between calls"
        )


def _rows(outputs: Any, rows: torch.Tensor, count: int) -> Any:
    """Those rows of each tensor that has one for each of ``count`` examples."""

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[rows.to(tensor.device)] if tensor.shape[:1] == (count,) else tensor

    return tree_map_only(torch.Tensor, cut, outputs)


def _kept(loss: Loss) -> dict[str, Any]:
    """What a loss that is a module holds: tensors copied; of lists and the like, the length."""
    held: dict[str, Any] = {}
    for path, module in loss.named_modules() if isinstance(loss, nn.Module) else ():
        for name, value in {**vars(module), **module._buffers, **module._parameters}.items():
            if isinstance(value, torch.Tensor):
                seen: Any = value.detach().clone()
            else:
                seen = repr(len(value) if hasattr(value, "__len__") else value)
            held[f"{path}.{name}".lstrip(".")] = seen
    return held


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _shape(given: Any) -> str:
    """``(2, 3) of float32``; of several, each; of what is no tensor, its type."""
    if isinstance(given, torch.Tensor):
        return f"{tuple(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
    if isinstance(given, Mapping):
        return f"dict of {', '.join(f'{key} {_shape(value)}' for key, value in given.items())}"
    if isinstance(given, tuple | list):
        return f"{type(given).__name__} of {', '.join(map(_shape, given))}"
    return type(given).__name__
