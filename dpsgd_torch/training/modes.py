"""Training and evaluation mode, layer by layer: what was handed over in ``eval()`` stays there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


class TrainingModes:
    """In which mode each of a model's modules is trained, as the model was handed over.

    * A model in training mode is trained with every module in the mode it has: a batch norm that
      was put in ``eval()`` stays frozen, a dropout stays off.
    * A model that is itself in evaluation mode, as one comes from a file, was not put there layer
      by layer: all of it is trained in training mode.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> modes = TrainingModes(model)
    >>> with evaluating(model):
    ...     model[0].training
    False
    >>> modes.restore()
    >>> [dropout.training for dropout in model], modes.frozen
    ([True, False], ['1'])
    """

    def __init__(self, model: nn.Module) -> None:
        if not model.training:
            model.train()
        self._modes = _modes(model)
        self.frozen = [name for name, module in model.named_modules() if not module.training]

    def restore(self) -> None:
        """Put each module in the mode it is trained in."""
        _put(self._modes)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The whole model in evaluation mode; each module is given back in the mode it had."""
    before = _modes(model)
    model.eval()
    try:
        yield
    finally:
        _put(before)


def _modes(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in model.modules()]


def _put(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        if module.training != mode:
            module.training = mode  # not train(), which goes on to the modules inside
