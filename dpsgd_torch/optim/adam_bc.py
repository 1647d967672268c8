"""Adam with its second moment corrected for the noise that the privacy plan adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from accountant.errors import check


class AdamBC(torch.optim.Optimizer):
    """Adam and AdamW with bias correction for the noise, DP-AdamBC [Tang, Shpilevskiy, Lécuyer
    2024, Algorithm 1].

    Of a noisy gradient g + z, with z of variance Φ = (σC/B)² on each coordinate, Adam's second
    moment estimates g² + Φ, and where Φ ≫ g² all coordinates are scaled alike: Adam is then SGD
    with momentum. Here the step is lr · m̂ / (√max(v̂ − Φ̂, floor · Φ̂) + eps).

    * Guarantee: Φ comes from the plan (``noise_deviation``, which a trainer tells before each
      step), never from data; all else are released gradients: no cost.
    * Where noise or clip norm follow a schedule, Φ̂ is the average of the steps' Φ with the weights
      that v̂ gives their squares, so that v̂ − Φ̂ is unbiased at every step.
    * Without noise it is torch's Adam; ``decoupled``: AdamW [Loshchilov, Hutter 2019].

    Args:
        params: parameters, or groups of them.
        lr, betas, eps, weight_decay: as in ``torch.optim.Adam``.
        floor: least value of the corrected second moment, in units of Φ̂ (the paper's γ′ is
            floor · Φ̂): below it v̂ − Φ̂ is mostly noise of its own, whose deviation is
            √(2 (1 − β₂)/(1 + β₂)) Φ̂, 0.03 Φ̂ for β₂ = 0.999.
        decoupled: weight decay as in AdamW.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = AdamBC([weight], lr=0.1)
    >>> optimizer.noise_deviation = 1.0
    >>> weight.grad = torch.tensor([3.0, 1.0])
    >>> optimizer.step()
    >>> optimizer.second_moment(weight).round(decimals=3)  # 3² − 1 and 1² − 1
    tensor([8., 0.])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        floor: float = 0.1,
        decoupled: bool = False,
    ) -> None:
        check(0 <= lr < math.inf, "lr", lr, "must be a number ≥ 0")
        for name, beta in zip(("beta1", "beta2"), betas, strict=True):
            check(0 <= beta < 1, name, beta, "must lie in [0, 1)")
        check(eps >= 0, "eps", eps, "must be ≥ 0")
        check(weight_decay >= 0, "weight_decay", weight_decay, "must be ≥ 0")
        check(1e-5 <= floor < math.inf, "floor", floor, "must be ≥ 1e-5, which float32 resolves")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "floor": floor, "decoupled": decoupled})
        self.noise_deviation = 0.0  # on each coordinate of ``grad`` in the next step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step by the noisy gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)
        return loss

    def second_moment(self, p: torch.Tensor) -> torch.Tensor:
        """v̂ − Φ̂ of a parameter, before the floor: an unbiased estimate of the squared gradient.

        Its mean of steps, weighted as Adam weights them. May be negative.
        """
        state = self.state[p]
        group = next(g for g in self.param_groups if any(each is p for each in g["params"]))
        return state["exp_avg_sq"] / _weight(group["betas"][1], state["step"]) - _noise(
            state, group["betas"][1]
        )

    def _move(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), state, gradient = group["betas"], self.state[p], p.grad
        assert gradient is not None
        if group["weight_decay"] and group["decoupled"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        elif group["weight_decay"]:
            gradient = gradient.add(p, alpha=group["weight_decay"])
        if not state:
            # plain numbers: torch would load a tensor in the parameter's own precision
            state["step"], state["noise"] = 0, 0.0
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
        state["step"] += 1
        state["noise"] = beta2 * state["noise"] + (1 - beta2) * self.noise_deviation**2
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        noise = _noise(state, beta2)
        second = state["exp_avg_sq"].div(_weight(beta2, state["step"])).sub_(noise)
        scale = second.clamp_(min=group["floor"] * noise).sqrt_().add_(group["eps"])
        p.addcdiv_(state["exp_avg"], scale, value=-group["lr"] / _weight(beta1, state["step"]))


def _weight(beta: float, step: int) -> float:
    return 1 - beta**step


def _noise(state: dict[str, Any], beta2: float) -> float:
    """Φ̂: the mean of the steps' noise variances, weighted as their squared gradients are."""
    return float(state["noise"]) / _weight(beta2, state["step"])
