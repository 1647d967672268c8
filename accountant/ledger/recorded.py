"""Events that were written down: a run's ledger, or a JSON list that anybody can write."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accountant.errors import InvalidValue, LedgerError, brief
from accountant.events import Event, event_from_json
from accountant.ledger.seal import refuse_damage

_NO_EVENTS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def read_events(path: Path) -> list[tuple[Event, int]]:
    """What ``path`` says was released, equal events counted together.

    Args:
        path: a run's ledger.sqlite, which is not locked or changed by reading it; or JSON, a list
            of events as ``to_json`` writes them, each with a "count" (1 if absent), or an object
            with such a list under "events".

    Raises:
        LedgerError: it cannot be read, or holds no event.
        InvalidValue, UnsupportedEvent: an event outside its domain, or not one we can price.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "events.json"
    ...     _ = path.write_text('[{"type": "laplace", "noise_multiplier": 10, "count": 3}]')
    ...     read_events(path)
    [(Laplace(noise_multiplier=10), 3)]
    """
    try:
        written = _from_sqlite(path) if _is_sqlite(path) else _from_json(path)
        total: Counter[Event] = Counter()
        for event, count in written:
            total[event] += count
    except (OSError, sqlite3.Error, *_NO_EVENTS) as error:
        if isinstance(error, InvalidValue):
            raise
        raise LedgerError(
            f"ledger {path}: cannot be read ({error}); name a run's ledger.sqlite, or JSON events"
        ) from error
    relations = {event.relation for event in total}
    if len(relations) != 1:
        rule = "two relations cannot share one sum" if relations else "holds no event"
        raise LedgerError(f"ledger {path}: {rule}; name another file")
    return list(total.items())


def drawn_in_float32(path: Path) -> bool:
    """Whether a run's ledger was charged by a trainer that drew its noise in float32.

    Such noise ends at 5.77 deviations and comes in pairs that give a sum away: the ε that the
    ledger sums up to holds only against who does not use either. Since then each attempt says
    "float64 noise" where it names its torch.
    """
    if not _is_sqlite(path):
        return False
    with _copied(path) as copy:
        environments = [row[0] for row in copy.execute("SELECT environment FROM attempt")]
    return any("torch " in told and "float64 noise" not in told for told in environments)


def _is_sqlite(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def read_charges(path: Path, part: str = "training") -> list[tuple[int, int, Event]]:
    """(attempt, step, event) of all that one part of a run's ledger was charged, as it came.

    Raises:
        LedgerError: it cannot be read.
    """
    try:
        with _copied(path) as copy:
            rows = copy.execute(
                "SELECT attempt, step, json FROM charge JOIN event ON event.id = charge.event "
                "WHERE part = ? ORDER BY attempt, step",
                (part,),
            ).fetchall()
        return [(attempt, step, event_from_json(json.loads(text))) for attempt, step, text in rows]
    except (OSError, sqlite3.Error, *_NO_EVENTS) as error:
        raise LedgerError(
            f"ledger {path}: cannot be read ({error}); name a run's ledger.sqlite"
        ) from error


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[sqlite3.Connection]:
    """A copy to read: a running trainer holds the lock on the file itself."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copy(path.parent / name, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as copy:
            refuse_damage(copy)
            yield copy


def _from_sqlite(path: Path) -> Iterator[tuple[Event, int]]:
    with _copied(path) as copy:
        rows = copy.execute(
            "SELECT json, COUNT(*) FROM charge JOIN event ON event.id = charge.event "
            "GROUP BY event ORDER BY MIN(charge.id)"
        ).fetchall()
    for text, count in rows:
        yield event_from_json(json.loads(text)), count


def _from_json(path: Path) -> Iterator[tuple[Event, int]]:
    data = json.loads(path.read_text())
    for row in data["events"] if isinstance(data, dict) else data:
        fields: dict[str, Any] = dict(row)
        count = fields.pop("count", 1)
        if not (type(count) is int and 1 <= count <= 2**53):
            raise InvalidValue(
                f"count = {brief(count)}: must be a whole number from 1 to 2^53; mend {path}"
            )
        yield event_from_json(fields), count
