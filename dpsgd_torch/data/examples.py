"""One example of a data set of one's own: which part of an item is predicted, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Batch, Schema, Tensor
from dpsgd_torch.data.trees import Tree, kinds, mapped, named, structure
from dpsgd_torch.errors import DataError

Targets = str | int | Sequence[str | int] | None
_USUAL = ("label", "labels", "target", "targets", "y")  # names of what is predicted


class RowError(DataError):
    """A row that cannot be used, told in full but for whose data it is."""


def split(item: Any, targets: Targets) -> tuple[Tree, Tree]:
    """(inputs, targets) of an item, or of a batch of them.

    Args:
        targets: the key or position of what is predicted, or several; None takes the second of
            a pair, or the one key of a dict that is called label, labels, target, targets or y.

    >>> split({"ids": 1, "mask": 2, "label": 3}, None), split((1, 2, 3), 2)
    (({'ids': 1, 'mask': 2}, 3), ((1, 2), 3))
    """
    keys = _keys(item, targets)
    held = dict(item) if isinstance(item, Mapping) else dict(enumerate(item))
    rest = {key: part for key, part in held.items() if key not in keys}
    predicted = {key: held[key] for key in keys}
    if isinstance(targets, str | int) or targets is None:
        return _inputs(item, rest), predicted[keys[0]]
    return _inputs(item, rest), _inputs(item, predicted)


def joined(item: Any, inputs: Tree, predicted: Tree, targets: Targets) -> Any:
    """The item, or a batch of them, that ``split`` gave these parts of.

    >>> item = {"ids": 1, "label": 3, "mask": 2}
    >>> joined(item, *split(item, None), None), joined((1, 2, 3), *split((1, 2, 3), 2), 2)
    ({'ids': 1, 'label': 3, 'mask': 2}, [1, 2, 3])
    """
    keys = _keys(item, targets)
    there = list(item) if isinstance(item, Mapping) else list(range(len(item)))
    held: dict[Any, Tree] = {}
    several = not (isinstance(targets, str | int) or targets is None)
    for names, part, whole in (
        ([key for key in there if key not in keys], inputs, isinstance(item, Mapping)),
        (keys, predicted, several and isinstance(item, Mapping)),
    ):
        if isinstance(part, Mapping) and whole:
            held |= part
        else:
            held |= dict(zip(names, part if len(names) > 1 else [part], strict=True))
    return (
        {key: held[key] for key in there} if isinstance(item, Mapping) else [*map(held.get, there)]
    )


def with_inputs(item: Any, inputs: Tree, targets: Targets) -> Any:
    """The item with other inputs, as ``split`` gave them."""
    keys = _keys(item, targets)
    if isinstance(item, Mapping):
        return {**{key: item[key] for key in keys}, **inputs}
    places = [place for place in range(len(item)) if place not in keys]
    given = (inputs,) if len(places) == 1 else inputs
    held = {**{key: item[key] for key in keys}, **dict(zip(places, given, strict=True))}
    return tuple(held[place] for place in range(len(item)))


def _inputs(item: Any, rest: dict[Any, Tree]) -> Tree:
    if isinstance(item, Mapping):
        return rest
    return next(iter(rest.values())) if len(rest) == 1 else tuple(rest.values())


def _keys(item: Any, targets: Targets) -> list[Any]:
    if not isinstance(item, Mapping | tuple | list) or len(item) < 2:
        raise RowError(
            f"items = {_short(item)}: must hold inputs and targets: a pair (x, y), or a dict or "
            "tuple with targets= naming what is predicted"
        )
    there = list(item) if isinstance(item, Mapping) else list(range(len(item)))
    if targets is None:
        found = [key for key in there if key in _USUAL] if isinstance(item, Mapping) else there[1:]
        if len(found) != 1:
            raise RowError(
                f"items = {_short(item)}: which part is predicted is not told; pass "
                f"FromDataset(dataset, targets={there[-1]!r}), its key or position"
            )
        return found
    keys = [targets] if isinstance(targets, str | int) else list(targets)
    missing = [key for key in keys if key not in there]
    if missing or not keys or len(keys) == len(there):
        raise RowError(
            f"targets = {targets!r}: must name some of {there}, and leave some as inputs; name the "
            "key or position of what is predicted"
        )
    return keys


def _short(item: Any) -> str:
    text = kinds(item)
    return text if len(text) <= 120 else f"{type(item).__name__} of {len(item)}"


def tensors_of(part: Tree, name: str, where: str) -> Tree:
    """Every leaf as a tensor: arrays and numbers become one; of floats, torch's own float32."""
    try:
        return mapped(_tensor, part)
    except TypeError:
        for leaf, value in named(part, name):
            if not isinstance(value, torch.Tensor | np.ndarray | np.generic | bool | int | float):
                raise RowError(
                    f"{where}: {leaf} = {type(value).__name__}: must be a tensor, an array or a "
                    "number; make one in transform= (torchvision's v2.ToImage and v2.ToDtype for "
                    "images) or collate_fn= (of text)"
                ) from None
        raise


def _tensor(leaf: Any) -> torch.Tensor:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().as_subclass(torch.Tensor)
    if isinstance(leaf, np.ndarray):
        plain = leaf.flags.writeable and all(stride >= 0 for stride in leaf.strides)
        return torch.from_numpy(leaf if plain else leaf.copy())
    if isinstance(leaf, np.generic | bool | int | float):
        return torch.as_tensor(leaf)
    raise TypeError


def refuse_unlike(batch: Batch, schema: Schema, row: int) -> None:
    """Refuse a row, alone in a batch, of other shapes or dtypes than the first has."""
    for part, rows, wanted in zip(
        ("inputs", "targets"), batch, (schema.inputs, schema.targets), strict=True
    ):
        if isinstance(wanted, Tensor) and isinstance(rows, torch.Tensor):
            pairs = [(part, rows, wanted)]
        elif structure(rows) != structure(wanted):
            raise RowError(
                f"row {row}: {part} = {kinds(rows)}: must be {kinds(wanted)}, as row 0 is; give "
                "every row the same parts"
            )
        else:
            leaves = zip(named(rows, part), named(_as(wanted, rows), part), strict=True)
            pairs = [(name, leaf, spec) for (name, leaf), (_, spec) in leaves]
        for name, leaf, spec in pairs:
            if tuple(leaf.shape) != (1, *spec.shape) or leaf.dtype != spec.dtype:
                raise RowError(
                    f"row {row}: {name} = {leaf.dtype} of shape {tuple(leaf.shape[1:])}: must be "
                    f"{spec.dtype} of shape {spec.shape}, as row 0 is; give every row one shape "
                    "(resize or crop in transform=, pad to one length in collate_fn=)"
                )


def _as(wanted: Tree, rows: Tree) -> Tree:
    """The schema in the order of the row's keys."""
    return mapped(lambda _, spec: spec, rows, wanted)
