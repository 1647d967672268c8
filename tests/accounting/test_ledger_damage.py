"""A ledger whose file was damaged is refused, or costs what it did: never a lower ε."""

import contextlib
import re
import sqlite3

import pytest

from accountant import Gaussian, Ledger, LedgerError, Relation
from accountant.__main__ import main
from accountant.ledger.recorded import read_charges, read_events

EVENTS = [Gaussian(noise_multiplier=3.0), Gaussian(noise_multiplier=2.0)]


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", delta=1e-5)
    ledger.begin(first_step=0, environment="torch 2, float64 noise")
    for step in range(6):
        ledger.reserve(step, EVENTS[step % 2])
        ledger.settle(step, step)
    ledger.close()
    return tmp_path / "ledger.sqlite"


def change(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute(statement)


CHANGES = {
    "an event of other noise": """UPDATE event SET json = replace(json, '2.0', '6.0')""",
    "a charge that names no event": "UPDATE charge SET event = 3 WHERE step = 1",
    "a charge that names another": "UPDATE charge SET event = 1 WHERE step = 1",
    "a charge lost": "DELETE FROM charge WHERE step = 5",
    "an event lost with its charges": "DELETE FROM charge WHERE event = 2",
    "a seal lost": "DELETE FROM meta WHERE key = 'event 2'",
    "the mark of a sealed ledger lost": "DELETE FROM meta WHERE key = 'sealed'",
    "another number in a seal": "UPDATE meta SET value = replace(value, '3', '4') "
    "WHERE key = 'event 1'",
    "an event more": """INSERT INTO event (json) VALUES ('{"type": "no_cost"}')""",
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_not_written_is_refused_by_every_reader(path, what):
    change(path, CHANGES[what])
    with pytest.raises(LedgerError, match=re.escape(str(path))):
        read_events(path)
    with pytest.raises(LedgerError, match=re.escape(str(path))):
        read_charges(path)
    with pytest.raises(LedgerError, match=re.escape(str(path))):
        Ledger(path, delta=1e-5, resumed=True)


def test_an_event_and_its_charges_taken_out_whole_are_missed(path):
    change(path, "DELETE FROM charge WHERE event = 2")
    change(path, "DELETE FROM event WHERE id = 2")
    with pytest.raises(LedgerError, match="not all events are there"):
        read_events(path)


def test_a_ledger_that_goes_on_stays_sealed(path):
    ledger = Ledger(path, delta=1e-5, resumed=True)
    ledger.begin(first_step=6, environment="torch 2, float64 noise")
    ledger.reserve(6, EVENTS[0], count=3)
    ledger.part("validation").begin(first_step=0, environment="the same")
    ledger.close()
    assert dict(read_events(path)) == {EVENTS[0]: 6, EVENTS[1]: 3}


def test_a_ledger_of_an_earlier_version_goes_on_without_seals(path):
    change(path, "DELETE FROM meta WHERE key != 'relation'")
    ledger = Ledger(path, delta=1e-5, resumed=True)
    ledger.begin(first_step=6, environment="torch 2, float64 noise")
    ledger.reserve(6, EVENTS[0])
    copied = Ledger.of_rows(ledger.rows(), delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    copied.copy_to(path.with_name("copy.sqlite"))
    ledger.close()
    assert read_events(path) == read_events(path.with_name("copy.sqlite"))
    change(path, "UPDATE charge SET event = 9 WHERE step = 1")
    with pytest.raises(LedgerError, match="1 charges name no event"):
        read_events(path)


@pytest.mark.parametrize(
    "events",
    [
        '[{"type": "laplace", "noise_multiplier": 1%s}]' % ("0" * 400),
        '[{"type": "laplace", "noise_multiplier": 1, "count": 1%s}]' % ("0" * 400),
        '[{"type": "laplace", "noise_multiplier": 1, "count": true}]',
        '[{"type": "laplace", "noise_multiplier": "%s"}]' % ("x" * 5000),
        '[{"type": "gaussian", "noise_multiplier": 1, "relation": "%s"}]' % ("x" * 5000),
    ],
)
def test_events_that_are_none_are_refused_in_one_short_line(tmp_path, events, capsys):
    (path := tmp_path / "events.json").write_text(events)
    assert main(["ledger", str(path), "--delta", "1e-5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 600
