"""What a loop is handed and what it gives back, and what of that is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.trees import Tree
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.walk import ACCUMULATE


@dataclass(frozen=True, kw_only=True)
class LoopBatch:
    """Part of a batch, as much as memory holds at once: forward, ``backward``, ``step``.

    Args:
        inputs, targets: the rows, as the data give them; in secure mode filled up to one number of
            rows, by copies of the first that count for nothing.
        indices: which rows of the data they are; empty where they are none of its own.
        step: the step they belong to, counted from 0.
        epoch: counted from 1.
        is_last: whether the noise comes after it.
        rehearsal: rows on which the loop is tried: before the first charge, around each epoch's
            first step, and where the engine meets what no row so far had shown. Nothing that an
            example's loss is may depend on this.
        stands_in: no row was drawn, and the batch is noise alone: this one counts for nothing.
    """

    inputs: Tree
    targets: Tree
    indices: Indices = field(repr=False)
    step: int
    epoch: int
    is_last: bool
    rehearsal: bool = False
    stands_in: bool = False


@dataclass(frozen=True)
class Question:
    """Losses that are asked for; ``around`` is what their forward pass runs in."""

    batch: LoopBatch
    around: tuple[AbstractContextManager[Any], ...]


def now() -> int:
    """The place in the graph of what is made from here on, in this thread."""
    node: Any = (torch.zeros((), requires_grad=True) + 0).grad_fn
    return int(node._sequence_nr())


def refuse_unfit(losses: Any, count: int, since: int, params: Iterable[nn.Parameter]) -> None:
    """Refuse losses that are not one value for each of ``count`` rows, made ``since`` then.

    Args:
        params: those of the model that are trained.

    Raises:
        ModelError: what is wrong with them, or with the gradients beside them.
    """
    if not isinstance(losses, torch.Tensor):
        raise ModelError(
            f"backward({type(losses).__name__}): must be given a tensor, one loss for each of the "
            f"{count} examples"
        )
    if losses.ndim == 0:
        raise ModelError(
            f"backward: losses of shape () for {count} examples: a mean over the batch mixes "
            "them and no clip bounds one of them; return them unreduced (reduction='none')"
        )
    if losses.shape != (count,):
        raise ModelError(
            f"backward: losses of shape {tuple(losses.shape)} for {count} examples: must be one "
            f"value for each, of shape ({count},), of this batch and no other"
        )
    if not losses.is_floating_point():
        raise ModelError(f"backward: losses of {losses.dtype}: must be floating point")
    if older(losses, since):
        raise ModelError(
            "backward: losses that are made in part before this batch was handed over: they may "
            "hold another's examples, or weights as they were; make them anew from batch.inputs"
        )
    trained = list(params)
    if (other := _of_others(losses, trained, count)) is not None:
        kind = "parameter" if isinstance(other, nn.Parameter) else "tensor"
        raise ModelError(
            f"backward: losses hang on a {kind} of shape {tuple(other.shape)} that is not the "
            "model's and needs a gradient: what trains it has no noise, and would come back in "
            "every loss; make it a part of the model, or requires_grad_(False)"
        )
    if any(p.grad is not None for p in trained):
        raise ModelError(
            "backward: parameters hold a gradient already, to which no clip and no noise was "
            "applied; leave loss.backward() out, and call private.backward(losses) instead"
        )


def older(losses: torch.Tensor, since: int) -> bool:
    """Whether a part of the graph is older than ``since``; parameters always are."""
    return any(node.name() != ACCUMULATE and node._sequence_nr() < since for node in _graph(losses))


def _of_others(
    losses: torch.Tensor, trained: Iterable[nn.Parameter], count: int
) -> torch.Tensor | None:
    """A leaf of the graph that is neither trained here nor of the batch's examples."""
    ours = {id(p) for p in trained}
    leaves = (node.variable for node in _graph(losses) if node.name() == ACCUMULATE)
    for leaf in leaves:
        of_batch = not isinstance(leaf, nn.Parameter) and leaf.shape[:1] == (count,)
        if id(leaf) not in ours and not of_batch:
            found: torch.Tensor = leaf
            return found
    return None


def _graph(losses: torch.Tensor) -> Iterator[Any]:
    """All nodes of the graph that losses come from."""
    nodes: list[Any] = [losses.grad_fn]
    seen = set[Any]()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        nodes += [child for child, _ in node.next_functions]
