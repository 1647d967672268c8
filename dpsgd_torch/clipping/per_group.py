"""Per-group clipping: layers, or groups of one's own, are each cut to their part of the norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from accountant.errors import check
from dpsgd_torch.clipping.base import Clipping, Group
from dpsgd_torch.clipping.flat import FLAT

SPLITS = ("equal", "size")


@dataclass(frozen=True)
class GroupClipping(Clipping):
    """Each group's part of a gradient clipped to a norm of its own [McMahan et al. 2018, Sec. 3].

    * Group g of G is clipped flat to C_g = s_g C, where s_g = 1/√G, or √(d_g / d) of its d_g of all
      d values. Σ C_g² = C²: the whole is at most C long, and sensitivity is C.
    * A gradient that is not finite in one group counts as zero in all.
    * The direction does not stay: groups are cut by factors of their own.

    Args:
        split: how the norm is shared, "equal" or by "size".
        mapping: the group of each trained parameter, by the names of ``named_parameters``; None for
            each layer's (module's) own. Pairs, or a dict.

    >>> GroupClipping().groups({"0.weight": 90, "0.bias": 10, "2.weight": 300})
    (Group(places=(0, 1), share=0.707...), Group(places=(2,), share=0.707...))
    """

    name: ClassVar[str] = "per-layer"
    whole: ClassVar[bool] = False
    split: str = "equal"
    mapping: Any = None  # kept as sorted pairs, so that plans can be compared

    def __post_init__(self) -> None:
        rule = f"must be one of {', '.join(SPLITS)}"
        check(self.split in SPLITS, "split", self.split, rule)
        if self.mapping is not None:
            pairs = ((str(name), str(group)) for name, group in dict(self.mapping).items())
            object.__setattr__(self, "mapping", tuple(sorted(pairs)))

    def factors(self, norms: torch.Tensor, bound: float) -> torch.Tensor:
        return FLAT.factors(norms, bound)

    def groups(self, sizes: Mapping[str, int]) -> tuple[Group, ...]:
        named = {name: name.rpartition(".")[0] for name in sizes}
        if self.mapping is not None:
            given = dict(self.mapping)
            for name in sizes:
                rule = "is trained and in no group"
                check(name in given, "mapping", name, rule, "name a group for it")
            for name in given:
                rule = "is no trained parameter of the model"
                check(name in sizes, "mapping", name, rule, "see model.named_parameters()")
            named = {name: given[name] for name in sizes}
        places: dict[str, list[int]] = {}
        for place, name in enumerate(sizes):
            places.setdefault(named[name], []).append(place)
        values = list(sizes.values())
        counts = [sum(values[place] for place in each) for each in places.values()]
        weights = counts if self.split == "size" else [1] * len(counts)
        shares = [math.sqrt(weight / sum(weights)) for weight in weights]
        return tuple(map(Group, map(tuple, places.values()), shares))

    def check(self, *, scheduled: bool, secure: bool, independent: bool) -> None:
        rule = "rounds by group, for which secure mode has no charge"
        check(not secure, "clipping", self.name, rule, "clip flat, or drop secure")

    def describe(self, first: float, last: float) -> str:
        words = FLAT.describe(first, last).replace("clipped", "clipped group by group", 1)
        return f"{words} in all ({'equal shares' if self.split == 'equal' else 'shares by size'})"

    def to_json(self) -> dict[str, Any]:
        groups = None if self.mapping is None else [list(pair) for pair in self.mapping]
        return {"clipping": self.name, "split": self.split, "mapping": groups}
