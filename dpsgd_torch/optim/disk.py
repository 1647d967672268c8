"""Kalman filter of the noisy gradient with a constant gain, its gradient taken ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from accountant.errors import check
from dpsgd_torch.optim.asked import read
from dpsgd_torch.optim.base import Filter
from dpsgd_torch.optim.doppler import Doppler


class Disk(Filter):
    """Kalman-filtered gradients of constant gain, DiSK [Zhang et al. 2025, Algorithm 1].

    * With the gain κ and γ = (1 − κ)/κ: each example's gradient is taken at x_t + γ (x_t − x_(t−1))
      and clipped there, noise is added as ever, and the optimizer steps by the estimate
      e_t = (1 − κ) e_(t−1) + κ g_t, which begins with g_0.
    * The paper clips a combination of the gradients at that point and at x_t, with factors
      (1 − κ)/(κγ) and 1 − (1 − κ)/(κγ). For this γ they are 1 and 0: one pass an example, the
      choice it makes too. One vector an example is clipped to C: the sensitivity is C.
    * Guarantee: the point and the estimate are functions of what was released: no cost.
    """

    def __init__(self, gain: float = 0.7) -> None:
        super().__init__()
        check(0 < gain < 1, "gain", gain, "must lie strictly between 0 and 1")
        self.gain, self.steps = gain, 0
        self._before: list[torch.Tensor] = []  # weights before the last step
        self._estimate: list[torch.Tensor] = []

    def follow(self, params: Sequence[nn.Parameter]) -> Disk:
        super().follow(params)
        self._before = [p.detach().clone() for p in self.params]
        self._estimate = [torch.zeros_like(p) for p in self.params]
        return self

    @contextlib.contextmanager
    def looking_ahead(self) -> Iterator[None]:
        if not self.steps:
            yield
            return
        here = [p.detach().clone() for p in self.params]
        ahead = (1 - self.gain) / self.gain
        for p, before in zip(self.params, self._before, strict=True):
            p.data.add_(p.data - before, alpha=ahead)
        try:
            yield
        finally:
            for p, value in zip(self.params, here, strict=True):
                p.data.copy_(value)

    def apply(self) -> None:
        share = self.gain if self.steps else 1.0
        for p, before, held in zip(self.params, self._before, self._estimate, strict=True):
            assert p.grad is not None
            before.copy_(p.detach())
            held.mul_(1 - share).add_(p.grad, alpha=share)
            p.grad.copy_(held)
        self.steps += 1

    def describe(self) -> str:
        return (
            f"Kalman-filtered (DiSK of constant gain {self.gain:g}), each example's taken ahead of "
            "the weights, where their last step points"
        )

    def state_dict(self) -> dict[str, Any]:
        told = {"gain": self.gain, "steps": self.steps}
        return {**told, "before": list(self._before), "estimate": list(self._estimate)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])
        for name, mine in (("before", self._before), ("estimate", self._estimate)):
            for held, kept in zip(mine, state[name], strict=True):
                held.copy_(kept)


def filter_of(given: str | Filter | None) -> Filter | None:
    """One that was given, or asked for as ``doppler:POLE`` or ``disk:GAIN``.

    >>> filter_of("doppler:0.5").pole, filter_of("disk").gain, filter_of("none")
    (0.5, 0.7, None)
    """
    if given is None or isinstance(given, Filter):
        return given
    kind, number = read("filter", given)
    if number is None:
        return None
    return {"doppler": Doppler, "disk": Disk}[kind](number)
