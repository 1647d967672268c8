"""Low-pass filter of the noisy gradient: noise is white, the gradient changes slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from accountant.errors import check
from dpsgd_torch.optim.base import Filter


class Doppler(Filter):
    """Low-pass filtered gradients, DOPPLER [Zhang et al. 2024, Algorithm 1].

    * m_t = −a m_(t−1) + b (g_t + g_(t−1)) with a = −``pole`` and b = (1 − pole) / 2: the
      filter of first order with a zero at the highest frequency; what does not change passes as it
      is. The optimizer steps by m_t / c_t, where c_t is the same filter of 1, 1, 1, …: the
      correction of the start.
    * Guarantee: a linear function of the noisy gradients so far, with fixed numbers: no cost.
    """

    def __init__(self, pole: float = 0.9) -> None:
        super().__init__()
        check(0 < pole < 1, "pole", pole, "must lie strictly between 0 and 1")
        self.pole, self.gain, self.carried = pole, 0.0, 0.0
        self._held: list[torch.Tensor] = []

    def follow(self, params: Sequence[nn.Parameter]) -> Doppler:
        super().follow(params)
        self._held = [torch.zeros_like(p) for p in self.params]
        return self

    def apply(self) -> None:
        b = (1 - self.pole) / 2
        self.gain = b + self.carried  # of a signal that is 1 from the first step on
        self.carried = b + self.pole * self.gain
        for p, held in zip(self.params, self._held, strict=True):
            assert p.grad is not None
            filtered = p.grad * b + held  # the transposed direct form: one tensor is carried
            held.copy_(p.grad).mul_(b).add_(filtered, alpha=self.pole)
            p.grad.copy_(filtered.div_(self.gain))

    def describe(self) -> str:
        return f"low-pass filtered (DOPPLER of first order, pole {self.pole:g})"

    def state_dict(self) -> dict[str, Any]:
        return {
            "pole": self.pole,
            "gain": self.gain,
            "carried": self.carried,
            "held": list(self._held),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gain, self.carried = float(state["gain"]), float(state["carried"])
        for held, kept in zip(self._held, state["held"], strict=True):
            held.copy_(kept)
