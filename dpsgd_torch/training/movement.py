"""A model that does not learn says so: after noise every trained parameter has moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from dpsgd_torch.errors import ModelError, RunError
from dpsgd_torch.training.released_state import Watched

_CAUSES = (
    "a step was wrapped or hooked, or a library replaced the parameter: give the trainer "
    "the model and an optimizer made from it as they are, or requires_grad_(False)"
)


class Movement:
    """Parameters that no step of this process has moved yet, as they were before the first.

    Noise makes every gradient another number than zero, so a parameter whose rate is not zero
    moves, whatever the records are: what stands still says nothing of them.

    * What stands still at a rate of zero, as a warm-up begins with, is looked at in the next step;
      so is what a step is too small for (it rounds away) while rates still rise.
    """

    def __init__(self, model: Watched) -> None:
        self._before = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    def __bool__(self) -> bool:
        return bool(self._before)

    def check(
        self, model: Watched, optimizer: torch.optim.Optimizer, rising: Callable[[], bool]
    ) -> None:
        """Look at what a step has moved.

        Args:
            rising: whether a later step has a higher rate than this one.

        Raises:
            RunError: naming what should have moved.
        """
        rates = {p: float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
        now = dict(model.named_parameters())
        left = {n: was for n, was in self._before.items() if not _moved(now.get(n), was)}
        dead, rounded = list[str](), list[str]()
        for name, was in left.items():
            p = now.get(name)
            if p is None or p not in rates:
                dead.append(name)
            elif rates[p] != 0:
                (rounded if _rounds_away(p, was, rates[p]) else dead).append(name)
        self._before = left
        if dead:
            raise RunError(
                f"{_told(dead)}: noise was added and the step did not move it; {_CAUSES}"
            )
        if rounded and not rising():
            raise RunError(
                f"{_told(rounded)}: its values are so large that a step at this learning rate "
                "rounds away; raise the rate, or scale or freeze that parameter"
            )


def refuse_unmoved(
    copies: Mapping[nn.Parameter, nn.Parameter], optimizer: torch.optim.Optimizer, model: Watched
) -> None:
    """Refuse an optimizer whose step on copies set to zero leaves one of them there."""
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    rates = {p: float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    still = [p for p, copied in copies.items() if p in names and p.numel() and not copied.any()]
    if still:
        raise ModelError(
            f"{_told(names[p] for p in still)}: a step of the optimizer does not move it "
            f"(lr = {rates[still[0]]:g}), so it would cost ε and learn nothing; set lr > 0 (for a "
            "warm-up pass rate_schedule), or requires_grad_(False) where it shall stay"
        )


def _moved(p: torch.Tensor | None, was: torch.Tensor) -> bool:
    if p is None:
        return False
    return not was.numel() or p.shape != was.shape or not torch.equal(p.detach(), was)


def _rounds_away(p: nn.Parameter, was: torch.Tensor, rate: float) -> bool:
    """Whether a step of the rate, times its gradient or not, may be below what values resolve."""
    gradient = 1.0 if p.grad is None else float(p.grad.abs().max())
    return rate * min(1.0, gradient) < torch.finfo(was.dtype).eps * float(was.abs().min())


def _told(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - 3} more" if len(every) > 3 else ""
    return f"parameter {', '.join(every[:3])}{more}"
