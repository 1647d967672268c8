"""Autograd's own gradients of the plain model, and when two gradients count as the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, Tree, call, length, mapped
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.draws import HALF
from dpsgd_torch.gradients.vectors import unreached

Gradient = list[torch.Tensor]  # flat, a tensor a parameter

_OF_A_PARAMETER = 1e-3
_OF_ALL = 1e-5  # a part of the vector so small is rounding beside the others
_ALIKE = 1e-2  # of these: passes of one shape on a CPU round alike, row by row
_HALF = 30.0  # by so much more may a pass that goes through half precision round
_OF_ALL_HALF = 2.0**-7  # of what is added up there: two roundings to bfloat16
_AT_ONCE = 1 << 16  # values widened at once, so that they stay in the cache


class Oracle:
    """The model without hooks, and the names of what it trains.

    Args:
        scale: the loss scale, which what comes back is divided by.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, forward: Forward = call, scale: float = 1.0
    ) -> None:
        self.model, self.loss, self._forward, self._scale = model, loss, forward, scale
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.in_half = False
        held = [*model.parameters(), *model.buffers()]
        self.holds_half = any(tensor.dtype in HALF for tensor in held)
        self.unreached = set(self.named)

    @property
    def params(self) -> list[nn.Parameter]:
        return list(self.named.values())

    def outputs(self, inputs: Tree, of: str) -> Any:
        """What the model returns: a tensor of one row an example, or several things, one of them.

        What else there is, such as a cache or a state whose first dimension are layers, no check
        needs.
        """
        count = length(inputs)
        hint = "; check shape and dtype of the inputs, and that a batch of any size will do"
        with blamed(f"model over {count} {of}", self.model, hint=hint):
            outputs = self._forward(self.model, inputs)
        tensors = [part for part in tree_leaves(outputs) if isinstance(part, torch.Tensor)]
        if not tensors:
            raise ModelError(
                f"model returned {type(outputs).__name__}: must be a tensor, or a tuple or dict of "
                "tensors, a row an example; wrap the model in a module that picks its outputs"
            )
        if not any(part.shape[:1] == (count,) for part in tensors):
            shapes = ", ".join(str(tuple(part.shape)) for part in tensors)
            raise ModelError(
                f"model returned shape {shapes} for {count} examples: must be one row an example; "
                "keep the first dimension, also where it is 1"
            )
        return outputs

    def losses(self, outputs: Any, targets: Tree, of: str) -> torch.Tensor:
        with blamed(f"over {length(targets)} {of}", self.model):
            return self.loss(outputs, targets)

    def gradient(self, batch: Batch, of: str, factors: torch.Tensor | None = None) -> Gradient:
        """Of the sum of the losses, weighted; zero for a parameter that this pass leaves out.

        Inputs are contiguous: torch 2.13 can crash where a group norm is the first layer and its
        input is channels-last.

        Raises:
            ModelError: model or loss fail.
        """
        inputs = mapped(lambda tensor: tensor.contiguous(), batch[0])
        losses = self.losses(self.outputs(inputs, of), batch[1], of)
        total = losses.sum() if factors is None else losses @ factors.to(losses)
        if not total.requires_grad:
            raise unreached(next(iter(self.named)))
        scale = torch.full_like(total, self._scale)
        with blamed(f"backward pass over {length(batch[0])} {of}", self.model):
            found = torch.autograd.grad(total, self.params, scale, allow_unused=True)
        reached = [name for name, g in zip(self.named, found, strict=True) if g is not None]
        self.unreached -= set(reached)
        filled = (
            p.detach().new_zeros(p.shape) if g is None else g.to_dense()
            for p, g in zip(self.params, found, strict=True)
        )
        flat = [gradient.flatten() for gradient in filled]
        return flat if self._scale == 1 else [gradient / self._scale for gradient in flat]

    def refuse_unreached(self) -> None:
        """Refuse a parameter that no pass so far has reached."""
        for name in self.named:
            if name in self.unreached:
                raise unreached(name)

    def differing(
        self,
        reference: Gradient,
        given: Iterable[torch.Tensor],
        scale: float = 0.0,
        *,
        alike: bool = False,
        exact: bool = False,
    ) -> tuple[str, float] | None:
        """The first parameter whose gradients differ beyond rounding, and by how much of it.

        Of ``given`` a parameter at a time is held.

        What passes of one shape and weights of powers of 2 leave in half precision are the same
        factors, bit for bit. Autograd rounds their sum in each use of a parameter by 2⁻⁸ of it, and
        the sum of uses again: a share of what was added up, however little of it is left.

        Args:
            scale: of what was added up, where it is more than the sum.
            alike: both are of the same row in passes of one shape.
            exact: nothing in either was rounded to half precision.
        """
        parts = [_lengths(a, b) for a, b in zip(reference, given, strict=True)]
        whole = max(math.hypot(*(part[0] for part in parts)), scale)
        whole = max(whole, math.hypot(*(part[1] for part in parts)))
        if not math.isfinite(whole):
            known = all(math.isfinite(part[0]) for part in parts)
            return (next(iter(self.named)), whole) if known else None
        for name, a, (left, right, error) in zip(self.named, reference, parts, strict=True):
            own = max(left, right)
            strict = alike and a.device.type == "cpu"
            of_all = _OF_ALL
            if self.in_half and not exact:
                loose = not (alike or self.holds_half)  # and compared exactly as well
                own, of_all = _HALF * own, _OF_ALL_HALF if loose else _HALF * _OF_ALL
            allowed = _OF_A_PARAMETER * own + of_all * whole
            if error > allowed * (_ALIKE if strict else 1.0):
                return name, error / max(left, right)
        return None


def _lengths(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float, float]:
    """L2 norms of two vectors and of their difference, piece by piece in float64."""
    squares = []
    for start in range(0, len(a), _AT_ONCE):
        x, y = (v[start : start + _AT_ONCE].double() for v in (a, b))
        squares.append(torch.stack([x @ x, y @ y, (x - y).square().sum()]))
    if not squares:
        return 0.0, 0.0, 0.0
    left, right, error = torch.stack(squares).sum(0).sqrt().tolist()
    return left, right, error
