"""What was measured, as JSON and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from dpsgd_torch.export.cost import Block, Cost, LayerCost


def to_json(cost: Cost) -> dict[str, Any]:
    """Fields by name."""
    return dataclasses.asdict(cost)


def from_json(data: Any) -> Cost:
    """What ``to_json`` wrote: the file may be anybody's.

    Raises:
        ValueError: it is nothing that was measured.
    """
    try:
        fields = dict(data)
        layers = tuple(_layer(each) for each in fields.pop("layers"))
        blocks = tuple(_read(Block, each) for each in fields.pop("blocks"))
        cost = Cost(layers=layers, blocks=blocks, **fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"holds no costs of a model ({error})") from error
    numbers = [value for name, value in fields.items() if name != "core"]
    steps = range(len(layers))
    whole = all(type(value) is int and value >= 0 for value in numbers)
    placed = all(each.made in steps and each.last in steps[each.made :] for each in blocks)
    if not (whole and placed and layers and cost.counted and isinstance(cost.core, str)):
        raise ValueError("holds no costs of a model")
    return cost


def _layer(data: Any) -> Any:
    return _read(LayerCost, {**data, "shape": tuple(map(int, data["shape"]))})


def _read(kind: Any, data: Any) -> Any:
    """A frozen record of whole numbers from 0 on, and of words."""
    record = kind(**data)
    for field in dataclasses.fields(kind):
        value = getattr(record, field.name)
        if field.type == "int" and not (type(value) is int and value >= 0):
            raise ValueError(f"{field.name} = {value!r}")
        if field.type == "str" and not isinstance(value, str):
            raise ValueError(f"{field.name} = {value!r}")
    return record
