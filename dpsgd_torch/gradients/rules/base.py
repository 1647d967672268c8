"""What a layer rule gives: the per-example gradients of one layer type, for the opacus engine."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Use, described
from dpsgd_torch.gradients.rules.vmap import run_again

PerParameter = dict[Any, torch.Tensor]  # by parameter: (examples, *its shape)


class LayerRule:
    """Per-example gradients of a layer type; by itself, the layer run again under vmap.

    Registered by ``@register(LayerType)`` above the class, for that type and not its subclasses.
    A rule that is wrong is refused before anything is charged: its gradients are held against
    autograd's, one example at a time.

    * ``whole``: the rule answers for the layers inside as well, which get no rule of their own.
    """

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
