"""Tensors of all ranks: sums in the order of ranks, and what one has, for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.training.process_group import Lines

T = TypeVar("T")


class Collectives(ABC):
    """What ranks do together with tensors; all take part in each, or all hear who does not."""

    lines: Lines | None

    @property
    @abstractmethod
    def is_first(self) -> bool:
        """Whether this is rank 0."""

    @abstractmethod
    def exchange(self, what: str, value: Any = None) -> list[Any]:
        """Every rank's ``value``, JSON, in the order of ranks."""

    @abstractmethod
    def _heard(self, say: Callable[[], T]) -> T:
        """A collective that ends in an error of ours where a rank does not take part."""

    @property
    def _lines(self) -> Lines:
        assert self.lines
        return self.lines

    def concatenated(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) all ranks' values one after the other, in the order of ranks."""
        if self.lines is None:
            return values
        self.exchange("values")
        parts = self._heard(lambda: self._lines.gather(values.tobytes()))
        return np.concatenate([np.frombuffer(part) for part in parts])

    def summed(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Sums over ranks, float64, added in the order of ranks; only rank 0's are complete."""
        if self.lines is None:
            return list(tensors)
        return self._heard(lambda: self._lines.summed(tensors))

    def sum_of_part(self, rows: torch.Tensor) -> torch.Tensor:
        """(n,) float64: this rank's row of all ranks' (ranks, n), added in the order of ranks."""
        if self.lines is None:
            return rows[0].double()
        return self._heard(lambda: self._lines.sum_of_part(rows))

    def hand_round_parts(self, rows: torch.Tensor) -> None:
        """Write each rank's own row of (ranks, n) over that of all others."""
        if self.lines is not None:
            self._heard(lambda: self._lines.hand_round_parts(rows))

    def hand_round(self, tensors: Sequence[torch.Tensor]) -> None:
        """Write rank 0's values over those of all others."""
        if self.lines is not None:
            self._heard(lambda: self._lines.hand_round(tensors))

    def hand_round_made(
        self, make: Callable[[], None], tensors: Callable[[], Sequence[torch.Tensor]]
    ) -> None:
        """Write what rank 0 makes in ``tensors`` over those of all; what it refuses all refuse."""
        failed: Exception | None = None
        if self.is_first:
            try:
                make()
            except Exception as error:
                failed = error
        if self.lines is not None:
            given, good = tensors(), failed is None
            if not self._heard(lambda: self._lines.hand_round(given, good)) and good:
                self.exchange("what rank 0 made")  # where it tells why
        if failed:
            raise failed

    def joined(self, mine: torch.Tensor) -> torch.Tensor:
        """(ranks, n): the n values that each rank has, in the order of ranks."""
        return mine[None] if self.lines is None else self._heard(lambda: self._lines.joined(mine))

    def sent(
        self, values: torch.Tensor, outgoing: list[int], incoming: list[int]
    ) -> list[torch.Tensor]:
        """What each rank sent to this one.

        Args:
            values: flat: what goes to rank 0, to rank 1, …, as many as ``outgoing`` says.
            incoming: how many values each rank sends here.
        """
        if self.lines is None:
            return [values]
        return self._heard(lambda: self._lines.sent(values, outgoing, incoming))
