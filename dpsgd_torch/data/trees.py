"""Trees of tensors: one, or a tuple, list or dict of trees, each with a row for every example.

What a model is given and what it is told to predict. A single tensor is the smallest tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Tree = Any  # torch.Tensor | tuple[Tree, ...] | list[Tree] | Mapping[str, Tree]
Forward = Callable[[Any, Tree], Any]  # a model's outputs of inputs, as ``call`` has them


def call(model: Callable[..., Any], inputs: Tree) -> Any:
    """A model's outputs: of a tensor, of the tensors of a tuple, or of those that a dict names.

    >>> call(max, (1, 3)), call(dict, {"a": 1})
    (3, {'a': 1})
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def named(tree: Tree, name: str) -> Iterator[tuple[str, Any]]:
    """Whatever is no tuple, list or dict, by where it is.

    >>> list(named({"ids": 1, "more": (2, 3)}, "inputs"))
    [('inputs.ids', 1), ('inputs.more.0', 2), ('inputs.more.1', 3)]
    """
    for key, part in _parts(tree) or ():
        yield from named(part, f"{name}.{key}")
    if _parts(tree) is None:
        yield name, tree


def placed(tree: Tree, name: str) -> Tree:
    """A tree of where each leaf is.

    >>> placed({"ids": 1, "more": (2, 3)}, "inputs")
    {'ids': 'inputs.ids', 'more': ('inputs.more.0', 'inputs.more.1')}
    """
    names = iter([found for found, _ in named(tree, name)])
    return mapped(lambda leaf: next(names), tree)


def leaves(tree: Tree) -> list[Any]:
    """The tensors of a tree, in its order."""
    return [leaf for _, leaf in named(tree, "")]


def mapped(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """A tree of what ``function`` makes of each leaf, and of those in its place in the others.

    Named tuples and dicts of other kinds become plain ones.

    >>> mapped(lambda a, b: a + b, {"x": 1, "y": (2,)}, {"y": (20,), "x": 10})
    {'x': 11, 'y': (22,)}
    """
    parts = _parts(tree)
    if parts is None:
        return function(tree, *others)
    made = [(key, mapped(function, part, *(o[key] for o in others))) for key, part in parts]
    if isinstance(tree, Mapping):
        return dict(made)
    return [part for _, part in made] if isinstance(tree, list) else tuple(p for _, p in made)


def taken(tree: Tree, rows: Any) -> Tree:
    """The same rows of every tensor; a slice gives views.

    >>> taken((torch.arange(3), torch.eye(3)), slice(1))
    (tensor([0]), tensor([[1., 0., 0.]]))
    """
    return mapped(lambda tensor: tensor[rows], tree)


def length(tree: Tree) -> int:
    """How many examples there are: rows of the first tensor."""
    return len(first(tree))


def first(tree: Tree) -> torch.Tensor:
    """The first tensor of a tree, which tells its length and device."""
    tensor: torch.Tensor = leaves(tree)[0]
    return tensor


def structure(tree: Tree) -> Any:
    """What two trees share whose leaves stand in the same places.

    >>> structure({"b": 1, "a": (2, 3)}) == structure({"a": (5, 5), "b": 0})
    True
    """
    parts = _parts(tree)
    if parts is None:
        return None
    kind = "dict" if isinstance(tree, Mapping) else "tuple"
    return kind, {key: structure(part) for key, part in parts}


def kinds(tree: Tree) -> str:
    """A tree's types and keys in a message.

    >>> kinds({"a": torch.zeros(2), "b": (1,)}), kinds("text")
    ('dict of a: Tensor, b: (tuple of int)', 'str')
    """
    parts = _parts(tree)
    if parts is None:
        return type(tree).__name__
    within = [kinds(part) if _parts(part) is None else f"({kinds(part)})" for _, part in parts]
    if isinstance(tree, Mapping):
        within = [f"{key}: {kind}" for (key, _), kind in zip(parts, within, strict=True)]
    return f"{'dict' if isinstance(tree, Mapping) else type(tree).__name__} of {', '.join(within)}"


def _parts(tree: Tree) -> list[tuple[Any, Tree]] | None:
    """Keys and parts; None of a leaf."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    return list(enumerate(tree)) if isinstance(tree, tuple | list) else None
