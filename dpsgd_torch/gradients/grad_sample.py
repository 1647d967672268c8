"""Per-example gradients of a model: of each layer by its rule, in one backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.trees import Tree, length
from dpsgd_torch.gradients.capture import Capture, Use
from dpsgd_torch.gradients.clipped import MixedVectors
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rules.base import ClosedForm, checked
from dpsgd_torch.gradients.rules.registry import rule_of
from dpsgd_torch.gradients.rules.slots import Slots
from dpsgd_torch.gradients.trained_layers import layers_of
from dpsgd_torch.gradients.vectors import Stored, Vectors

_MANY = 1 << 16  # parameters: fewer are stored as quickly


class PerExampleGradients:
    """The model with hooks that keep what each layer saw, and its examples' gradients.

    * A layer whose rule has a closed form keeps inputs and output gradients, if ``closed_forms``;
      memory then grows with examples × widths. The others' parameters get ``grad_sample``, and
      memory grows with examples × parameters.
    * Every use of a parameter adds to its gradients, also in layers that share it.
    * No gradient of a weight is computed for the batch as a whole: a pass goes back to the
      layers' outputs, and each layer's rule takes it from there.
    """

    def __init__(self, model: nn.Module, *, closed_forms: bool = False) -> None:
        self._model, self._examples = model, 0
        layers = layers_of(model)
        owners = _owners(layers)
        self._forms = {
            layer: form
            for layer in layers
            if closed_forms and (form := closed_form_of(layer, owners))
        }
        inside = {layer: form.inside for layer, form in self._forms.items()}
        self._capture = Capture(layers, inside)
        self._closed: list[ClosedForm] = []

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Sum of the losses; what belongs to each example stays until ``vectors``."""
        self._examples = length(inputs)
        self._closed.clear()
        total, uses = self._capture.losses(self._model, loss, inputs, targets)
        for p in self._parameters():
            p.grad_sample = None
        edges = [use.edge for use in uses]
        deltas = list[torch.Tensor | None]()
        if edges:
            deltas.extend(torch.autograd.grad(total, edges, allow_unused=True))
        times = Counter(
            use.layer for use, delta in zip(uses, deltas, strict=True) if delta is not None
        )
        while uses:  # from the back, and forgotten one by one: memory holds less
            use, delta = uses.pop(), deltas.pop()
            use.refuse_overwritten()
            if delta is not None:
                dtype = next(use.layer.parameters()).dtype  # norms are not rounded to half
                self._take(use, delta.to(dtype), times[use.layer])
        self._closed.reverse()
        return float(total.detach())

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
        if self._forms:
            closed, self._closed = self._closed, []
            return MixedVectors(closed, params, Slots(slots, weights), self._examples)
        for p in self._parameters():
            if p.grad_sample is None:  # not used in this pass
                p.grad_sample = p.detach().new_zeros(()).expand(self._examples, *p.shape)
        return Stored(params, slots, weights)

    def cleanup(self) -> None:
        """Take the hooks off again."""
        self._capture.remove()
        for p in self._parameters():
            if hasattr(p, "grad_sample"):
                del p.grad_sample

    def _take(self, use: Use, delta: torch.Tensor, times: int) -> None:
        form = self._forms.get(use.layer)
        if form and times == 1 and form.pays(use) and {*form.inside} <= {*use.inside}:
            self._closed.append(form(use, delta))
            return
        rule = rule_of(use.layer)
        given = rule.per_example(use, delta.contiguous())
        for p, gradients in checked(given, use, rule, self._examples).items():
            if p.requires_grad:
                held = p.grad_sample
                p.grad_sample = gradients if held is None else held + gradients

    def _parameters(self) -> list[Any]:
        return [p for p in self._model.parameters() if p.requires_grad]


def closed_forms_pay(model: nn.Module) -> bool:
    """Whether every trained parameter has a closed form, or many have: else all are stored.

    >>> closed_forms_pay(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.LayerNorm(2)))
    True
    >>> closed_forms_pay(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(6, 2)))
    False
    >>> closed_forms_pay(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(512, 256)))
    True
    """
    layers = layers_of(model)
    owners = _owners(layers)
    closed = {p for layer in layers if closed_form_of(layer, owners) for p in layer.parameters()}
    trained = {p for p in model.parameters() if p.requires_grad}
    return closed == trained or sum(p.numel() for p in closed) >= _MANY


def closed_form_of(layer: nn.Module, owners: Mapping[nn.Parameter, int]) -> type[ClosedForm] | None:
    """The closed form that this layer's uses may have: of all it holds, all trained, none shared.

    Args:
        owners: in how many layers each parameter is.
    """
    form, held = rule_of(layer).closed_form, dict(layer.named_parameters())
    if form is None or not set(held) <= form.names:
        return None
    return form if all(p.requires_grad and owners[p] == 1 for p in held.values()) else None


def _owners(layers: Mapping[nn.Module, str]) -> Counter[nn.Parameter]:
    return Counter(p for layer in layers for p in layer.parameters(recurse=rule_of(layer).whole))
