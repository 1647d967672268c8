"""What was composed: each distinct event with its count, all under one neighbouring relation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Self

from accountant.errors import UnsupportedEvent, check_count
from accountant.events import Event, Relation


class Composer(ABC):
    """What the accountants share: they compose events under one relation."""

    _composition: Composition

    @abstractmethod
    def compose(self, event: Event, count: int = 1) -> Self:
        """Add ``count`` releases of ``event``, in place; returns the accountant itself."""

    def compose_all(self, events: Iterable[tuple[Event, int]]) -> Self:
        """Add releases, each event with its count, in place; returns the accountant itself."""
        for event, count in events:
            self.compose(event, count)
        return self

    @property
    def events(self) -> list[tuple[Event, int]]:
        """Each distinct event with its count, in the order of first use."""
        return self._composition.events

    @property
    def relation(self) -> Relation | None:
        """The relation of what was composed."""
        return self._composition.relation


class Composition:
    """Counts of events; the one place where counts add up.

    >>> from accountant.events import Gaussian
    >>> so_far = Composition().add(Gaussian(noise_multiplier=2.0), 3)
    >>> so_far.add(Gaussian(noise_multiplier=2.0), 4).events
    [(Gaussian(noise_multiplier=2.0), 7)]
    """

    def __init__(self, relation: Relation | None = None) -> None:
        self.relation = relation
        self._counts: dict[Event, int] = {}

    def add(self, event: Event, count: int = 1) -> Composition:
        """Count ``event`` again, in place."""
        check_count("count", count)
        if self.relation not in (None, event.relation):
            raise UnsupportedEvent(
                f"relation = {event.relation.value}: what is composed so far is stated for "
                f"{self.relation.value}, and relations do not add up; state all events for one"
            )
        if count:
            self.relation = event.relation
            self._counts[event] = self._counts.get(event, 0) + int(count)
        return self

    def copy(self) -> Composition:
        """An independent composition of the same."""
        twin = Composition(self.relation)
        twin._counts = dict(self._counts)
        return twin

    @property
    def events(self) -> list[tuple[Event, int]]:
        """Each distinct event with its count, in the order of first use."""
        return list(self._counts.items())


def added_up(events: Iterable[tuple[Event, int]]) -> dict[Event, int]:
    """How often each distinct event is among them, in the order of first use."""
    counts: dict[Event, int] = {}
    for event, count in events:
        counts[event] = counts.get(event, 0) + count
    return counts


def are_among(counts: Mapping[Event, int], allowed: Mapping[Event, int]) -> bool:
    """Whether no event is there more often than is allowed.

    >>> are_among({}, {})
    True
    """
    return all(count <= allowed.get(event, 0) for event, count in counts.items())
