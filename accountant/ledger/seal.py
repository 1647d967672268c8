"""Whether a ledger's file holds what was written: a flipped bit in it would be another ε.

SQLite keeps no checksum of its pages. Beside each event ``meta`` therefore holds how many charges
name it, and a digest of that number and the event: an event of other noise, a charge that names
another event or none, and a charge that is lost all show. Ledgers of earlier versions have no such
rows; of theirs the structure alone is checked.
"""

from __future__ import annotations

import hashlib
import sqlite3

SEALED = "sealed"  # a key of meta: this ledger's events are


def key(event: int) -> str:
    """Where in ``meta`` an event's seal stands."""
    return f"event {event}"


def seal(count: int, text: str) -> str:
    """The seal of an event that so many charges name.

    >>> seal(3, "{}") == seal(3, "{}"), seal(3, "{}") == seal(2, "{}")
    (True, False)
    """
    return f"{count} {hashlib.sha256(f'{count} {text}'.encode()).hexdigest()}"


def refuse_damage(ledger: sqlite3.Connection) -> None:
    """Refuse a file that is not what was written.

    Raises:
        sqlite3.DatabaseError: it is damaged; the message says where.
    """
    found = ledger.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))
    lost = "SELECT COUNT(*) FROM charge WHERE event NOT IN (SELECT id FROM event)"
    if count := ledger.execute(lost).fetchone()[0]:
        raise sqlite3.DatabaseError(f"damaged: {count} charges name no event")
    meta = dict(ledger.execute("SELECT key, value FROM meta"))
    if SEALED not in meta and not any(str(name).startswith("event ") for name in meta):
        return
    counts = dict(ledger.execute("SELECT event, COUNT(*) FROM charge GROUP BY event"))
    for number, text in ledger.execute("SELECT id, json FROM event"):
        if meta.pop(key(number), None) != seal(counts.get(number, 0), text):
            raise sqlite3.DatabaseError(
                f"damaged: event {number} and its charges are not as they were written"
            )
    if set(meta) != {SEALED, "relation"}:
        raise sqlite3.DatabaseError("damaged: not all events are there that were written")
