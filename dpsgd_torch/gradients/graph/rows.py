"""Where the examples are among the dimensions of a tensor in the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Dimension ``dim`` counts (outer, examples, inner): all three in one, the last the fastest.

    A batch first is ``dim=0, outer=1``, whether or not other dimensions are flattened into it.
    """

    examples: int
    dim: int = 0
    outer: int = 1

    def split(self, tensor: torch.Tensor, leading: int) -> torch.Tensor:
        """(examples, steps, *rest), where the first ``leading`` dimensions became the steps.

        Raises:
            ValueError: the examples are not among the leading dimensions, or do not fit.

        >>> Rows(3, dim=1).split(torch.zeros(5, 3, 7), 2).shape  # a sequence's steps first
        torch.Size([3, 5, 7])
        >>> Rows(3).split(torch.zeros(12, 7), 1).shape  # four steps flattened into the batch
        torch.Size([3, 4, 7])
        """
        size = tensor.shape[self.dim] if self.dim < leading else 0
        inner, left = divmod(size, self.outer * self.examples)
        if left or not inner:
            raise ValueError(f"examples are not in dimension {self.dim} of {tuple(tensor.shape)}")
        before, after = tensor.shape[: self.dim], tensor.shape[self.dim + 1 :]
        parted = tensor.reshape(*before, self.outer, self.examples, inner, *after)
        first = parted.movedim(self.dim + 1, 0)
        return first.flatten(1, leading + 1)
