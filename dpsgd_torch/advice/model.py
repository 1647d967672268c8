"""The user's model: a function that makes it, named as FILE.py:function, or linear features."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ConfigError, ModelError, shown, told


def made_by(name: str) -> nn.Module:
    """What the function makes, in training mode, as a Trainer would be given it.

    Raises:
        ConfigError: there is no such file or function, or it does not load.
        ModelError: it raises, or makes no module.
    """
    path, _, function = name.rpartition(":")
    if not path or not function:
        raise ConfigError(f"model = {shown(name)}: must be FILE.py:function, as my_net.py:make")
    make = getattr(_loaded(name, Path(path)), function, None)
    if not callable(make):
        raise ConfigError(f"model = {name}: {path} has no function {function}; name one of its")
    try:
        model = make()
    except Exception as error:
        raise ModelError(
            f"model = {name}: raises {told(error)}; it is called with nothing"
        ) from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"model = {name}: gives {type(model).__name__}; must give a torch module")
    return model


def _loaded(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_advised_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"model = {name}: there is no Python file {path}; name one")
    module, folder = importlib.util.module_from_spec(spec), str(path.resolve().parent)
    sys.path.insert(0, folder)  # what it imports lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"model = {name}: {path} does not load ({told(error)}); mend it"
        ) from None
    finally:
        sys.path.remove(folder)
    return module


def parameters_of(model: nn.Module) -> int:
    """How many are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def linear_head(features: int, classes: int) -> nn.Module:
    """Softmax regression, from zero."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def made_up_rows(
    count: int, shape: Sequence[int], classes: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, *shape) and (count,) classes, none of anyone: digits where images fit, else blobs.

    Square images of side 8 or more are made-up digits, one grey in each channel, whose class is
    the digit's remainder. Other rows lie about a random centre for each class; rows of one
    dimension are scaled to norm 4, as features for a linear head are.

    >>> made_up_rows(3, (1, 28, 28), 10)[0].shape, made_up_rows(3, (20,), 4)[0].shape
    (torch.Size([3, 1, 28, 28]), torch.Size([3, 20]))
    """
    square = len(shape) == 3 and shape[1] == shape[2] >= 8 and shape[0] in (1, 3)
    if square:
        from dpsgd_torch.features.made_up.digits import made_up_digits

        images, digits = made_up_digits(count, shape[1], seed)
        return images.expand(count, *shape).contiguous(), digits % classes
    drawn = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, *shape, generator=drawn)
    labels = torch.randint(classes, (count,), generator=drawn)
    rows = centres[labels] + torch.randn(count, *shape, generator=drawn)
    if len(shape) == 1:
        rows = rows * (4 / rows.norm(dim=1, keepdim=True))
    return rows, labels
