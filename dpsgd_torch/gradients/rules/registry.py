"""Which rule a layer goes by: the registered one, Opacus's grad sampler, or the layer run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.rules.base import LayerRule
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule, samplers

R = TypeVar("R", bound=LayerRule)


class RunAgain(LayerRule):
    """A layer without a rule, run again under vmap with all that is inside."""

    whole = True


_REGISTERED: dict[type[nn.Module], LayerRule] = {}
_OPACUS, _RUN_AGAIN = OpacusRule(), RunAgain()


def register(*layers: type[nn.Module]) -> Callable[[type[R]], type[R]]:
    """Register a layer rule for these layer types, and not for their subclasses.

    Later rules replace earlier ones. ``@register(MyLayer)`` stands above the rule's class;
    ``register(MyLayer)(SomeRule)`` gives a layer the rule of another. What is no rule, or for no
    type of layer, is refused at once.

    >>> from dpsgd_torch.gradients import LayerRule, register
    >>> class Scale(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.factor = nn.Parameter(torch.ones(3))
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> @register(Scale)
    ... class ScaleRule(LayerRule):
    ...     def per_example(self, use, delta):
    ...         return {use.layer.factor: delta * use.x}
    """

    for layer in layers:
        if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
            raise ModelError(
                f"register({_name(layer)}): takes types of layers, @register(MyLayer); give it a "
                "subclass of nn.Module"
            )

    def take(rule: type[R]) -> type[R]:
        if not (isinstance(rule, type) and issubclass(rule, LayerRule)):
            raise ModelError(
                f"register({', '.join(map(_name, layers))}) of {_name(rule)}: is no LayerRule; "
                "derive it from dpsgd_torch.gradients.LayerRule"
            )
        made = rule()
        for layer in layers:
            _REGISTERED[layer] = made
        return rule

    return take


def rule_of(layer: nn.Module) -> LayerRule:
    """The rule of a layer's type."""
    kind = type(layer)
    if kind in _REGISTERED:
        return _REGISTERED[kind]
    return _OPACUS if kind in samplers() else _RUN_AGAIN


def _name(given: Any) -> str:
    return given.__name__ if isinstance(given, type) else type(given).__name__


def is_registered(layer: nn.Module) -> bool:
    """Whether its type has a rule here."""
    return type(layer) in _REGISTERED
