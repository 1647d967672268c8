"""What a layer rule gives: per-example gradients, and perhaps closed forms that store none."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Use, described
from dpsgd_torch.gradients.rules.slots import Slots
from dpsgd_torch.gradients.rules.vmap import run_again

PerParameter = dict[Any, torch.Tensor]  # by parameter: (examples, *its shape)
Sums = dict[Any, torch.Tensor]  # by parameter: its shape, float64


class LayerRule:
    """Per-example gradients of a layer type; by itself, the layer run again under vmap.

    Registered by ``@register(LayerType)`` above the class, for that type and not its subclasses.
    A rule that is wrong is refused before anything is charged: its gradients are held against
    autograd's, one example at a time.

    * ``closed_form``: the class that knows norms and sums without the gradients, or None.
    * ``whole``: the rule answers for the layers inside as well, which get no rule of their own.
    """

    closed_form: ClassVar[type[ClosedForm] | None] = None
    whole: ClassVar[bool] = False

    def refusal(self, layer: nn.Module) -> str:
        """Why this layer has no per-example gradients, and what to do; empty where it has."""
        return ""

    def per_example(self, use: Use, delta: torch.Tensor) -> PerParameter:
        """Gradients of one use of the layer, an example a row.

        Args:
            use: ``use.layer`` and what it was called with: ``use.x`` is the first argument, whose
                row i is example i; ``use.args`` and ``use.kwargs`` are all of them.
            delta: the loss's gradient at the layer's output, contiguous.
        """
        return run_again(use, delta, inside=self.whole)


def checked(given: Any, use: Use, rule: LayerRule, examples: int) -> PerParameter:
    """What a rule gave for one use of a layer, if it is an example a row of its parameters.

    Raises:
        ModelError: it is something else; rule and layer are named.
    """
    of = f"{described(use.path, use.layer)}: its rule {type(rule).__name__}.per_example gives"
    to_mend = "return {parameter: (examples, *its shape)} of the layer's parameters"
    if not isinstance(given, dict):
        raise ModelError(f"{of} {type(given).__name__}; {to_mend}")
    names = {p: name for name, p in use.layer.named_parameters()}
    for p, gradients in given.items():
        if p not in names:
            raise ModelError(f"{of} a gradient of what is no parameter of it; {to_mend}")
        shape = tuple(getattr(gradients, "shape", ()))
        if not isinstance(gradients, torch.Tensor) or shape != (examples, *p.shape):
            what = (
                f"shape {shape}"
                if isinstance(gradients, torch.Tensor)
                else type(gradients).__name__
            )
            raise ModelError(
                f"{of} {what} for {names[p]}, of shape {tuple(p.shape)}, and {examples} examples; "
                f"{to_mend}"
            )
    return given


class ClosedForm(ABC):
    """Norms and weighted sums of a layer's per-example gradients that are never written out.

    One is made for each use of the layer in a pass. Every tensor among its attributes has a row an
    example; more of them may be set in ``__init__``.

    * ``names``: the layer's parameters that it speaks for. It is used where they are all that the
      layer has, all are trained, and none of them is used twice in the pass; else they are stored.
    * ``inside``: paths of modules in the layer whose outputs it needs: ``use.inside[path]``.
    """

    names: ClassVar[frozenset[str]] = frozenset({"weight", "bias"})
    inside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, use: Use, delta: torch.Tensor) -> None:
        self.layer: Any = use.layer
        self.x = use.x.to(delta.dtype) if use.x.is_floating_point() else use.x
        self.delta = delta

    @classmethod
    def pays(cls, use: Use) -> bool:
        """Whether it can and should be used here; by itself, for one dimension an example."""
        return use.dimensions == 2

    @abstractmethod
    def squared_norms(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        """(slots,) squared norms over the layer's parameters, and by what they may be too small."""

    @abstractmethod
    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        """Add Σ factor × gradient over the examples; sums and factors are float64."""

    def silence(self, rows: torch.Tensor) -> None:
        """Let these examples (a mask) count as zero."""
        for name, value in self._tensors().items():
            if value.is_floating_point():
                mask = rows.view(-1, *(1,) * (value.ndim - 1))
                setattr(self, name, value.masked_fill(mask, 0.0))

    def widened(self, rows: torch.Tensor) -> Self:
        """What some of the examples left, in float64."""
        twin = copy.copy(self)
        for name, value in self._tensors().items():
            kept = value[rows]
            setattr(twin, name, kept.double() if kept.is_floating_point() else kept)
        return twin

    def again(self, rows: torch.Tensor) -> Self:
        """The same use by some of the examples, in float64 as far as it can be computed again."""
        return self.widened(rows)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: v for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
