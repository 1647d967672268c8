"""Participation patterns: the steps at which one record may contribute."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import check


def _whole(name: str, value: float) -> None:
    check(value >= 1 and value % 1 == 0, name, value, "must be a whole number ≥ 1")


@dataclass(frozen=True, kw_only=True)
class SinglePass:
    """Each record contributes to at most one step."""

    def most(self, steps: int) -> int:
        """Participations of one record in ``steps`` steps, at most."""
        return min(1, steps)


@dataclass(frozen=True, kw_only=True)
class _OncePerEpoch:
    steps_per_epoch: int

    def __post_init__(self) -> None:
        _whole("steps_per_epoch", self.steps_per_epoch)

    def most(self, steps: int) -> int:
        """Participations of one record in ``steps`` steps, at most."""
        return -(-steps // self.steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class FixedEpochs(_OncePerEpoch):
    """Epochs of equal length in one order: a record contributes at o, o + e, o + 2e, …

    * e = ``steps_per_epoch``; the place o < e of a record is the same in every epoch.
    * Batches shuffled afresh for each epoch are none of this: see ``Reshuffled``.
    """


@dataclass(frozen=True, kw_only=True)
class Reshuffled(_OncePerEpoch):
    """Epochs shuffled afresh: a record contributes once in each, anywhere.

    * Its steps in two epochs in turn may be neighbours: last of one, first of the next.
    """


@dataclass(frozen=True, kw_only=True)
class MinSeparation:
    """At most ``participations`` steps, any two of them at least ``separation`` apart.

    >>> MinSeparation(participations=10, separation=400).most(2000)
    5
    """

    participations: int
    separation: int

    def __post_init__(self) -> None:
        _whole("participations", self.participations)
        _whole("separation", self.separation)

    def most(self, steps: int) -> int:
        """Participations of one record in ``steps`` steps, at most."""
        return min(self.participations, -(-steps // self.separation))


Participation = SinglePass | FixedEpochs | Reshuffled | MinSeparation
