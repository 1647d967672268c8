"""Presets by name, each a whole configuration; a task's folder holds its own.

What a notebook claimed of its run, and what holds, stands beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.tasks.base import PresetValues, TaskKind
from dpsgd_torch.tasks.registry import TASKS


@dataclass(frozen=True)
class Preset:
    """A configuration, what it is, and what its notebook claimed."""

    config: RunConfig
    summary: str
    claim: str = ""
    follow: Callable[[float], Mapping[str, Any]] | None = None
    chosen: str = ""
    batch_follows: bool = False
    """Whether the batch is the preset's own: where n is smaller, it is n."""

    def changed(self, given: Mapping[str, Any]) -> Preset:
        """With other values; what follows ε or n and is not among them follows those that are."""
        epsilon, size = given.get("epsilon"), given.get("dataset_size")
        followed = dict(self.follow(epsilon)) if self.follow and epsilon else {}
        follows = self.batch_follows and not {"batch_size", "microbatches"} & set(given)
        if follows and size and size > 0:
            followed["batch_size"] = min(self.config.batch_size, size)
        config = self.config.changed(**{**followed, **given})
        return dataclasses.replace(self, config=config, batch_follows=follows)


def _built(kind: TaskKind, values: PresetValues) -> Preset:
    config = RunConfig(preset=values.name, dataset=kind.name).changed(**values.values)
    return Preset(
        config,
        values.summary,
        values.claim,
        values.follow,
        values.chosen,
        batch_follows=config.microbatches is None,
    )


class _Presets(Mapping[str, Callable[[], Preset]]):
    """Those of the tasks that are registered, in their order."""

    def __getitem__(self, name: str) -> Callable[[], Preset]:
        for kind in TASKS.values():
            for values in kind.presets:
                if values.name == name:
                    return lambda: _built(kind, values)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (values.name for kind in TASKS.values() for values in kind.presets)

    def __len__(self) -> int:
        return sum(1 for _ in self)


PRESETS = _Presets()
