"""Charges outlive the process that made them, and a file that cannot be trusted says so."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from accountant import Gaussian, Ledger, LedgerError, PoissonSampled, RdpAccountant

STEP = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.0))

RESERVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from accountant import Gaussian, Ledger, PoissonSampled

ledger = Ledger(Path(sys.argv[1]), delta=1e-5)
ledger.begin(first_step=0, environment="cpu")
for step in range(3):
    event = Gaussian(noise_multiplier=1.0)
    ledger.reserve(step, PoissonSampled(sampling_rate=0.01, event=event))
    if step < 2:
        ledger.settle(step, checksum=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def started(path):
    ledger = Ledger(path, delta=1e-5)
    ledger.begin(first_step=0, environment="cpu")
    return ledger


def damage(path, statement, *values):
    """Write a charge, close, and change the file behind the ledger's back."""
    ledger = started(path)
    ledger.reserve(0, STEP)
    ledger.close()
    database = sqlite3.connect(path)
    database.execute(statement, values)
    database.commit()
    database.close()


def test_a_killed_process_has_paid_for_every_step_it_reserved(path):
    dead = subprocess.run([sys.executable, "-c", RESERVE_AND_DIE, path])
    assert dead.returncode == -signal.SIGKILL
    ledger = started(path)
    assert ledger.events() == [(STEP, 3)]
    assert ledger.accountant.epsilon(1e-5) == RdpAccountant().compose(STEP, 3).epsilon(1e-5)
    assert [ledger.repeat(step, STEP) for step in range(3)] == [0, 1, None]


def test_a_charge_is_in_the_files_before_reserve_returns(path, tmp_path):
    ledger = started(path)
    for step in range(3):
        ledger.reserve(step, STEP)
        folder = tmp_path / f"after_{step}"
        folder.mkdir()
        for file in tmp_path.glob("ledger.sqlite*"):
            shutil.copy(file, folder)
        copy = sqlite3.connect(folder / "ledger.sqlite")
        charges = copy.execute("SELECT step FROM charge ORDER BY id").fetchall()
        copy.close()
        assert charges == [(number,) for number in range(step + 1)]


def test_one_process_holds_the_ledger_at_a_time(path):
    holder = started(path)
    with pytest.raises(LedgerError, match=r"ledger .*ledger\.sqlite: database is locked; .*wait"):
        Ledger(path, delta=1e-5)
    holder.reserve(0, STEP)
    holder.close()
    assert len(Ledger(path, delta=1e-5)) == 1


def test_a_file_held_by_another_program_is_refused(path):
    started(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="database is locked"):
        Ledger(path, delta=1e-5)
    other.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_text("epoch,loss\n" * 200)
    with pytest.raises(LedgerError, match="file is not a database"):
        Ledger(path, delta=1e-5)
    assert path.read_text() == "epoch,loss\n" * 200


def test_a_path_that_cannot_be_opened_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "ledger.sqlite"):
        with pytest.raises(LedgerError, match="unable to open database file"):
            Ledger(path, delta=1e-5)


def test_somebody_elses_database_is_refused(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(LedgerError, match="no such table"):
        Ledger(path, delta=1e-5)


def test_a_truncated_database_is_refused(path):
    ledger = started(path)
    ledger.reserve(0, STEP)
    ledger.close()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LedgerError):
        Ledger(path, delta=1e-5)


def test_another_relation_is_refused(path):
    damage(path, "UPDATE meta SET value = 'replace_one' WHERE key = 'relation'")
    with pytest.raises(LedgerError, match="its relation is replace_one, not add_or_remove_one"):
        Ledger(path, delta=1e-5)


def test_a_ledger_that_lost_its_relation_is_refused(path):
    """A crash between the first two commits leaves exactly this."""
    damage(path, "DELETE FROM meta")
    with pytest.raises(LedgerError):
        Ledger(path, delta=1e-5)


def test_a_ledger_that_lost_an_event_is_refused(path):
    damage(path, "DELETE FROM event")
    with pytest.raises(LedgerError):
        Ledger(path, delta=1e-5)


@pytest.mark.parametrize("text", ["{", json.dumps({**STEP.to_json(), "sampling_rate": 1.5})])
def test_a_ledger_with_an_event_that_cannot_be_is_refused(path, text):
    damage(path, "UPDATE event SET json = ?", text)
    with pytest.raises(LedgerError):
        Ledger(path, delta=1e-5)


def test_a_copy_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(LedgerError):
        started(None).copy_to(tmp_path / "missing" / "copy.sqlite")


def test_a_reservation_that_fails_leaves_the_ledger_in_use(path):
    ledger = started(path)
    unwritable = Gaussian(noise_multiplier=np.float32(1.5))  # json writes no float32
    try:
        ledger.reserve(0, unwritable)
    except TypeError:
        assert not ledger.is_charged(0)
    else:
        assert ledger.is_charged(0)
    ledger.reserve(1, STEP)
    counted = len(ledger)
    ledger.close()
    assert len(Ledger(path, delta=1e-5)) == counted


def fill_up(ledger):
    """Reserve ever new events until no page is left; returns only if it never is."""
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(1000):
        ledger.reserve(number, Gaussian(noise_multiplier=1.0 + number))


def test_a_full_disk_refuses_the_step_and_keeps_the_ledger_readable(path):
    ledger = started(path)
    with pytest.raises(LedgerError, match="full"):
        fill_up(ledger)
    written = len(ledger)
    ledger._db.execute("PRAGMA max_page_count = 100000")
    ledger.reserve(written, Gaussian(noise_multiplier=1.0 + written))
    ledger.close()
    again = Ledger(path, delta=1e-5)
    assert again.events() == [(Gaussian(noise_multiplier=1.0 + n), 1) for n in range(written + 1)]
