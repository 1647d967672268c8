"""Several optimizers that share a model's parameters out among them, stepped as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from dpsgd_torch.errors import ModelError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Any]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | OptimizerFactory


class Several:
    """Optimizers over disjoint parameters, with what of an optimizer a run asks for.

    >>> matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    >>> both = Several([torch.optim.SGD([matrix], lr=0.1), torch.optim.Adam([vector], lr=0.2)])
    >>> [group["lr"] for group in both.param_groups]
    [0.1, 0.2]
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of each in turn."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As one optimizer over all their groups would have it, parameters counted on."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        start = 0
        for part in self.parts:
            own = part.state_dict()
            state |= {start + place: values for place, values in own["state"].items()}
            for group in own["param_groups"]:
                groups.append({**group, "params": [start + place for place in group["params"]]})
            start += _count(part)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        groups, start = list(state["param_groups"]), 0
        for part in self.parts:
            end = start + _count(part)
            mine = [groups.pop(0) for _ in part.param_groups]
            part.load_state_dict(
                {
                    "state": {i - start: v for i, v in state["state"].items() if start <= i < end},
                    "param_groups": [
                        {**group, "params": [i - start for i in group["params"]]} for group in mine
                    ],
                }
            )
            start = end


def _count(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def parts_of(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that one is made of; most often itself."""
    return list(getattr(optimizer, "parts", [optimizer]))


def name_of(optimizer: torch.optim.Optimizer) -> str:
    """Its kind, or those it is made of."""
    return " + ".join(type(part).__name__ for part in parts_of(optimizer))


def made_optimizer(
    given: Optimizers, model: nn.Module, trainable: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer that was given, made where a factory was, joined where there are several.

    Raises:
        ModelError: two of several hold the same parameter, or something is no optimizer.
    """
    if not isinstance(given, torch.optim.Optimizer | Sequence):
        given = given(trainable)
    if isinstance(given, torch.optim.Optimizer):
        return given
    parts: list[Any] = list(given) if isinstance(given, Sequence) else [given]
    for part in parts:
        if not isinstance(part, torch.optim.Optimizer):
            raise ModelError(
                f"optimizer = {type(part).__name__}: must be a torch.optim.Optimizer, a list of "
                "them over disjoint parameters, or a function of the parameters that makes either"
            )
    names = {p: name for name, p in model.named_parameters()}
    seen = set[nn.Parameter]()
    for part in parts:
        held = {p for group in part.param_groups for p in group["params"]}
        if twice := sorted(names.get(p, "one of no model's") for p in held & seen):
            raise ModelError(
                f"parameter {twice[0]}: is in two optimizers, and one noisy gradient would move it "
                "twice; give each parameter to one of them"
            )
        seen |= held
    return parts[0] if len(parts) == 1 else cast(torch.optim.Optimizer, Several(parts))
