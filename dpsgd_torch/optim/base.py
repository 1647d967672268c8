"""Post-processing interfaces: what follows the weights, and what stands before the optimizer.

Both see what was released and nothing else, so that by the post-processing property they cost
nothing [Dwork, Roth 2014, Proposition 2.1].
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from accountant import InvalidValue


class Average(abc.ABC):
    """Averaged weights, which stand in for the last iterate's once training ends.

    * Guarantee: a function of the weights after each step, all of which ε covers: no cost.
    * With θ_t the weights after step t, s ← keep · s + weight · θ_t and w ← keep · w + weight, both
      from 0: the average is s / w. So the initial weights have no part in it, and an exponential
      average is corrected for its start as Adam's moments are [Kingma, Ba 2015, Algorithm 1].
    * Sums are float64 whatever the parameters are; parameters that are not trained stay as they
      are. Sums are kept in checkpoints, beside the last iterate, from which training goes on.

    A kind says by ``factors`` how each step counts.
    """

    def __init__(self) -> None:
        self.n_averaged, self.total = 0, 0.0
        self.best_is_average = True  # of the best epoch, where that is what the run ends with
        self._sums: dict[str, torch.Tensor] = {}
        self._iterate: dict[str, torch.Tensor] = {}

    @abc.abstractmethod
    def factors(self, step: int, steps: int) -> tuple[float, float]:
        """What stays of the sums so far, and what the weights after ``step`` of ``steps`` count."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What the weights are, as a clause: "the weights are …"."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What a resumed run must share."""

    @property
    def has_begun(self) -> bool:
        """Whether any step counts yet; until then the last iterate stands for itself."""
        return self.total > 0

    @property
    def is_in_place(self) -> bool:
        """Whether the model holds the average, and the last iterate is kept here."""
        return bool(self._iterate)

    def told(self) -> str:
        """What the model holds, for a run's files."""
        if not (self.is_in_place and self.best_is_average):
            return "the last iterate"
        return self.describe()

    def follow(self, model: nn.Module) -> Average:
        """Make room for the sums of a model's trained parameters."""
        self._sums = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in _trained(model)}
        return self

    def update(self, model: nn.Module, step: int, steps: int) -> None:
        """Count the weights after ``step``, of so many planned."""
        keep, weight = self.factors(step, steps)
        self.total = keep * self.total + weight
        self.n_averaged = self.n_averaged + 1 if weight else 0
        for name, p in _trained(model):
            self._sums[name].mul_(keep).add_(p.detach(), alpha=weight)

    def put_in_place(self, model: nn.Module) -> None:
        """Have the model hold the average; ``put_back`` undoes it to the last bit."""
        if not self.has_begun or self._iterate:
            return
        for name, p in _trained(model):
            self._iterate[name] = p.detach().clone()
            p.data.copy_(self._sums[name] / self.total)

    def put_back(self, model: nn.Module) -> None:
        """Have the model hold the last iterate again, from which training goes on."""
        for name, p in _trained(model):
            if name in self._iterate:
                p.data.copy_(self._iterate.pop(name))

    @contextlib.contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Around what looks at the average: scores, and what keeps the best epoch."""
        self.put_in_place(model)
        try:
            yield
        finally:
            self.put_back(model)

    def state_dict(self) -> dict[str, Any]:
        plain = {"n_averaged": self.n_averaged, "total": self.total, **self.to_json()}
        return {**plain, "best_is_average": self.best_is_average, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n_averaged, self.total = int(state["n_averaged"]), float(state["total"])
        self.best_is_average, self._iterate = bool(state["best_is_average"]), {}
        for name, held in self._sums.items():
            held.copy_(state["sums"][name])


class Filter(abc.ABC):
    """What stands between the noisy gradient and the optimizer that steps by it.

    * Guarantee: it sees released gradients and weights alone, so it costs nothing; clip, noise and
      sampling are untouched.

    A kind overrides ``apply``; ``looking_ahead`` where gradients are to be taken elsewhere than at
    the current weights, at a point that is itself a function of what was released.
    """

    def __init__(self) -> None:
        self.params: list[nn.Parameter] = []

    def follow(self, params: Sequence[nn.Parameter]) -> Filter:
        """Make room for what is kept of the gradients of these parameters."""
        self.params = list(params)
        return self

    @abc.abstractmethod
    def apply(self) -> None:
        """Put in the place of each parameter's ``grad`` what was filtered."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What it does, as a clause: "the noisy gradient was …"."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    @contextlib.contextmanager
    def looking_ahead(self) -> Iterator[None]:
        """Around a step's passes: the weights are elsewhere, and come back to the last bit."""
        yield


def needs_deviation(optimizers: Iterable[object]) -> bool:
    """Whether one of them corrects for the noise, whose deviation it must be told."""
    return any(hasattr(each, "noise_deviation") for each in optimizers)


def tell_deviation(optimizers: Iterable[object], deviation: float | None) -> None:
    """Tell those that ask what deviation the noise in each ``grad`` has in this step.

    Raises:
        InvalidValue: the kind of noise does not say.
    """
    for each in optimizers:
        if not hasattr(each, "noise_deviation"):
            continue
        if deviation is None:
            raise InvalidValue(
                f"optimizer = {type(each).__name__}: corrects for the noise, and this kind of "
                "noise does not say its deviation; choose another optimizer, or another noise"
            )
        each.noise_deviation = deviation


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
