"""Reserve → settle → resume: an append-only, durable record of every charged release."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accountant.calibration import WIDTH, cost, exact
from accountant.errors import LedgerError, PrivacyError, check, check_delta
from accountant.events import Event, Relation, count_runs, event_from_json
from accountant.ledger.budget import Budget
from accountant.ledger.seal import SEALED, key, refuse_damage, seal
from accountant.rdp.accountant import RdpAccountant
from accountant.risk.limit import RiskBudget, RiskLimit

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE event (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE);
CREATE TABLE attempt (part TEXT NOT NULL, number INTEGER NOT NULL, first_step INTEGER NOT NULL,
                      environment TEXT NOT NULL, PRIMARY KEY (part, number));
CREATE TABLE charge (id INTEGER PRIMARY KEY AUTOINCREMENT, part TEXT NOT NULL,
                     step INTEGER NOT NULL, attempt INTEGER NOT NULL, event INTEGER NOT NULL
                     REFERENCES event, checksum INTEGER, UNIQUE (part, step, attempt),
                     FOREIGN KEY (part, attempt) REFERENCES attempt);
"""

_TABLES = ("meta", "event", "attempt", "charge")
_NO_EVENT = (ValueError, KeyError, TypeError, AttributeError)  # what other JSON makes it raise


class Ledger:
    """What was drawn, written down before it is drawn.

    * ``reserve`` returns only once the charge is on disk; what is reserved counts as spent.
    * Rows are added and settled, never removed: ``epsilon`` never falls.
    * A resumed run belongs to the last *attempt* and may repeat its charges bit for bit at no
      cost, or opens a new attempt, whose steps are charged again.
    * With a budget, ``reserve`` refuses the step that would pass it, before anything is drawn.
    * One process at a time: the file stays locked while a Ledger has it open.
    * What a run does besides training (statistics, selection, validation, other folds) is charged
      to other *parts* of the same ledger, each with steps and attempts of its own: ``part``.

    Args:
        path: the SQLite file, created if absent; None keeps the ledger in memory, for a run that
            leaves nothing behind if it dies.
        delta: δ at which the budget is measured.
        budget: the ε not to pass, or None.
        planned: what the whole run means to charge; priced once, it need not be at each step.
        limit: a bound on any attacker that is not to be passed, in place of ``budget``.
        resumed: the file must already be a ledger: what was lost cannot count as unspent.

    >>> from accountant.events import Gaussian
    >>> ledger = Ledger(None, delta=1e-5, budget=1.0)
    >>> ledger.begin(first_step=0, environment="cpu")
    0
    >>> ledger.reserve(0, Gaussian(noise_multiplier=10.0))
    >>> ledger.settle(0, checksum=123)
    >>> ledger.reserve(1, Gaussian(noise_multiplier=1.0))
    Traceback (most recent call last):
    accountant.errors.BudgetExceeded: step 1 would reach ε = 4.4025 > 1 (δ = 1e-05); ...
    """

    def __init__(
        self,
        path: Path | None,
        *,
        delta: float,
        budget: float | None = None,
        planned: list[tuple[Event, int]] | None = None,
        relation: Relation = Relation.ADD_OR_REMOVE_ONE,
        resumed: bool = False,
        limit: RiskLimit | None = None,
    ) -> None:
        check_delta(delta)
        check(budget is None or budget > 0, "epsilon", budget, "must be > 0")
        self.delta, self.relation = delta, relation
        check(budget is None or limit is None, "limit", limit, "stands in place of a budget in ε")
        self.budget: Budget | RiskBudget | None = None
        if limit is not None:
            self.budget = RiskBudget(limit, planned or [])
        elif budget:
            self.budget = Budget(budget, delta, planned)
        self._where = str(path or ":memory:")
        self._event_ids: dict[Event, int] = {}
        self._counts: dict[int, int] = {}  # charges by event
        self._part = "training"
        self._attempt: int | None = None
        self._first_step = 0
        if resumed and path and not path.exists():
            raise self._lost()
        try:
            # threads that take turns may share it; two at once the lock of no other keeps apart
            self._db = sqlite3.connect(
                self._where, isolation_level=None, timeout=1.0, check_same_thread=False
            )
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._open(relation, resumed)
        except LedgerError:
            raise
        except (sqlite3.Error, PrivacyError, *_NO_EVENT) as error:
            raise LedgerError(
                f"ledger {self._where}: {error}; if another process trains this run, wait for it, "
                "else restore the file: without it no ε can be stated"
            ) from error

    def _open(self, relation: Relation, resumed: bool) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            if resumed:
                raise self._lost()
            insert = f"INSERT INTO meta VALUES ('relation', '{relation.value}'), ('{SEALED}', '1');"
            self._db.executescript("BEGIN;" + _SCHEMA + insert + "COMMIT;")
        elif resumed:
            refuse_damage(self._db)
        row = self._db.execute("SELECT value FROM meta WHERE key = 'relation'").fetchone()
        stated = row[0] if row else "missing"
        if stated != relation.value:
            raise LedgerError(
                f"ledger {self._where}: its relation is {stated}, not {relation.value}; "
                "two relations cannot share one sum"
            )
        sealed = self._db.execute("SELECT 1 FROM meta WHERE key = ?", (SEALED,))
        self._is_sealed = sealed.fetchone() is not None
        for number, text in self._db.execute("SELECT id, json FROM event"):
            self._event_ids[event_from_json(json.loads(text))] = number
        named = self._db.execute("SELECT event, COUNT(*) FROM charge GROUP BY event")
        self._counts.update(dict(named.fetchall()))
        self.accountant = RdpAccountant(relation=relation)
        self.accountant.compose_all(self.events())

    def _lost(self) -> LedgerError:
        return LedgerError(
            f"ledger {self._where}: is missing or empty; restore it: without it nobody knows what "
            "the run has spent"
        )

    def part(self, name: str) -> Ledger:
        """The same ledger, file and budget, for another sequence of steps; call ``begin`` on it.

        >>> from accountant.events import Laplace
        >>> ledger = Ledger(None, delta=1e-5)
        >>> statistics = ledger.part("statistics")
        >>> statistics.begin(first_step=0, environment="cpu")
        0
        >>> statistics.reserve(0, Laplace(noise_multiplier=10.0))
        >>> len(ledger), ledger.events()
        (1, [(Laplace(noise_multiplier=10.0), 1)])
        """
        other = copy.copy(self)
        other._part, other._attempt = name, None
        return other

    @property
    def name(self) -> str:
        """The part's name."""
        return self._part

    @property
    def attempt(self) -> int:
        if self._attempt is None:
            raise LedgerError(f"ledger {self._where}: call begin() first")
        return self._attempt

    @property
    def first_step(self) -> int:
        """The step at which the current attempt began, whoever goes on with it."""
        return self._first_step

    def begin(
        self,
        *,
        first_step: int,
        environment: str,
        repeatable: bool = True,
        kept_in: int | None = None,
    ) -> int:
        """Start or go on; returns the attempt's number, which keys the random streams.

        The last attempt goes on where its environment is the same, the device repeats bit for
        bit, and the checkpoint lies inside it: was written in the attempt ``kept_in``, where that
        is known, or is what it began with. Otherwise a new attempt draws and pays afresh.
        """
        last = self._do(
            "SELECT number, first_step, environment FROM attempt WHERE part = ? "
            "ORDER BY number DESC LIMIT 1",
            (self._part,),
        ).fetchone()
        own = last and (last[1] == first_step or kept_in in (None, last[0]))
        if own and repeatable and last[2] == environment and last[1] <= first_step:
            self._attempt, self._first_step = int(last[0]), int(last[1])
        else:
            self._attempt, self._first_step = last[0] + 1 if last else 0, first_step
            row = (self._part, self._attempt, first_step, environment)
            self._do("INSERT INTO attempt VALUES (?, ?, ?, ?)", row)
        return self.attempt

    def end_attempt(self) -> None:
        """Bar the current attempt from being repeated: the next ``begin`` opens another."""
        never = 2**63 - 1
        self._do(
            "UPDATE attempt SET first_step = ? WHERE part = ? AND number = ?",
            (never, self._part, self.attempt),
        )

    def is_charged(self, step: int) -> bool:
        """Whether this attempt has already paid for ``step``."""
        return self._row(step) is not None

    def reserve(self, step: int, event: Event, count: int = 1) -> None:
        """Charge ``step`` durably, before its noise is drawn; or so many steps from there on.

        Raises:
            BudgetExceeded: the charge would pass the budget; nothing was written.
        """
        if self.is_charged(step):
            raise LedgerError(f"step {step}: already charged in attempt {self.attempt}")
        if self.budget is not None:
            self.budget.refuse_overdraft(step, self.accountant, event, count)
        number = self._event_ids.get(event)
        text = json.dumps(event.to_json(), sort_keys=True, default=float)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if number is None:
                row = self._db.execute("INSERT INTO event (json) VALUES (?)", (text,))
                number = int(row.lastrowid or 0)
            self._db.executemany(
                "INSERT INTO charge (part, step, attempt, event) VALUES (?, ?, ?, ?)",
                [(self._part, step + i, self.attempt, number) for i in range(count)],
            )
            charges = self._counts.get(number, 0) + count
            if self._is_sealed:
                sealed = (key(number), seal(charges, text))
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", sealed)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise LedgerError(f"ledger {self._where}: step {step}: {error}") from error
        self._event_ids[event], self._counts[number] = number, charges
        self.accountant.compose(event, count)

    def repeat(self, step: int, event: Event) -> int | None:
        """The checksum on record for a step about to be repeated, or None if unsettled."""
        row = self._row(step)
        if row is None or row[0] != self._event_ids.get(event):
            raise LedgerError(f"step {step}: what would run is not what was charged")
        return row[1] if row[1] is None else int(row[1])

    def settle(self, step: int, checksum: int, count: int = 1) -> None:
        """Record that what was reserved was released, with a checksum of what came out."""
        changed = self._do(
            "UPDATE charge SET checksum = ? "
            "WHERE part = ? AND step >= ? AND step < ? AND attempt = ? AND checksum IS NULL",
            (int(checksum), self._part, step, step + count, self.attempt),
        ).rowcount
        if changed != count:
            raise LedgerError(f"step {step}: settled without being reserved")

    def events(self) -> list[tuple[Event, int]]:
        """Every charge in order, equal neighbours counted together."""
        by_id = {number: event for event, number in self._event_ids.items()}
        charges = self._do("SELECT event FROM charge ORDER BY id")
        return count_runs(by_id[number] for (number,) in charges)

    def epsilon(self, width: float = WIDTH) -> float:
        """The least ε known to hold for every charge so far, at the ledger's δ."""
        return cost(self.accountant.events, self.delta, lambda: exact(width))

    def __len__(self) -> int:
        """Charges so far; a step that was paid twice counts twice."""
        return sum(count for _, count in self.accountant.events)

    def charged_again(self) -> int:
        """Charges for steps that an earlier attempt had already paid for."""
        distinct = self._do("SELECT COUNT(*) FROM (SELECT DISTINCT part, step FROM charge)")
        return len(self) - int(distinct.fetchone()[0])

    def attempts_again(self) -> int:
        """Attempts that began anew what an earlier one of their part had begun."""
        row = self._do("SELECT COUNT(*) - COUNT(DISTINCT part) FROM attempt").fetchone()
        return int(row[0])

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy, for a run whose ledger was kept in memory."""
        try:
            target = sqlite3.connect(path)
            self._db.backup(target)
            target.close()
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {path}: {error}") from error

    def rows(self) -> dict[str, list[list[Any]]]:
        """All that it holds, as JSON, for ``of_rows`` in another process."""
        return {name: [list(row) for row in self._do(f"SELECT * FROM {name}")] for name in _TABLES}

    @classmethod
    def of_rows(
        cls, rows: Mapping[str, Sequence[Sequence[Any]]], *, delta: float, relation: Relation
    ) -> Ledger:
        """A copy in memory: of the one ledger that counts, for a process that follows it.

        It has no budget: what it is told to charge was charged.

        >>> from accountant.events import Gaussian
        >>> ledger = Ledger(None, delta=1e-5)
        >>> ledger.begin(first_step=0, environment="cpu")
        0
        >>> ledger.reserve(0, Gaussian(noise_multiplier=10.0))
        >>> copy = Ledger.of_rows(ledger.rows(), delta=1e-5, relation=ledger.relation)
        >>> copy.begin(first_step=0, environment="cpu"), copy.is_charged(0), len(copy)
        (0, True, 1)
        """
        copied = cls(None, delta=delta, relation=relation)
        copied._do("DELETE FROM meta")  # one that is not sealed stays so
        for name in _TABLES:
            for row in rows[name]:
                marks = ", ".join("?" * len(row))
                copied._do(f"INSERT OR REPLACE INTO {name} VALUES ({marks})", tuple(row))
        copied._open(relation, resumed=False)
        return copied

    def close(self) -> None:
        self._db.close()

    def _do(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {self._where}: {error}; nothing goes on without it: free the disk or "
                "restore the file, then resume"
            ) from error

    def _row(self, step: int) -> tuple[int, int | None] | None:
        row: tuple[int, int | None] | None = self._do(
            "SELECT event, checksum FROM charge WHERE part = ? AND step = ? AND attempt = ?",
            (self._part, step, self.attempt),
        ).fetchone()
        return row
