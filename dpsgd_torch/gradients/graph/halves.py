"""Whether half precision is anywhere between losses and parameters, as their graph shows it."""

from __future__ import annotations

import torch

HALF = (torch.float16, torch.bfloat16)


def goes_through_half(losses: torch.Tensor) -> bool:
    """Whether any gradient on the way back from ``losses`` is float16 or bfloat16.

    >>> weight = torch.ones(2, 2, requires_grad=True)
    >>> goes_through_half((weight.half() @ weight.half()).float().sum(1))
    True
    >>> goes_through_half((weight @ weight).sum(1))
    False
    """
    left, seen = [losses.grad_fn], set[object]()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if any(each.dtype in HALF for each in node._input_metadata):
            return True
        left += [child for child, _ in node.next_functions]
    return False
