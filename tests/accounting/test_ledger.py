"""What is reserved is written down, counts as spent, and is read back as it was."""

import contextlib

import pytest

from accountant import (
    Gaussian,
    InvalidValue,
    Ledger,
    LedgerError,
    NoCost,
    PoissonSampled,
    RdpAccountant,
    exact,
)


def step(noise=1.0):
    return PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=noise))


SCHEDULE = [step(2.0), step(2.0), step(1.5), step(2.0), step(0.1 + 0.2)]
RUNS = [(step(2.0), 2), (step(1.5), 1), (step(2.0), 1), (step(0.1 + 0.2), 1)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def started(path=None, events=()):
    ledger = Ledger(path, delta=1e-5)
    ledger.begin(first_step=0, environment="cpu")
    for number, event in enumerate(events):
        ledger.reserve(number, event)
    return ledger


def epsilon_of(events):
    accountant = RdpAccountant()
    for event in events:
        accountant.compose(event)
    return accountant.epsilon(1e-5)


def test_a_new_ledger_has_spent_nothing():
    ledger = Ledger(None, delta=1e-5)
    assert (len(ledger), ledger.events(), ledger.accountant.epsilon(1e-5).upper) == (0, [], 0)


def test_what_is_reserved_counts_as_spent_settled_or_not():
    ledger = started(events=SCHEDULE)
    ledger.settle(0, checksum=1)
    assert ledger.accountant.epsilon(1e-5) == epsilon_of(SCHEDULE)
    assert ledger.events() == RUNS
    assert len(ledger) == 5


def test_a_reopened_ledger_says_the_same_to_the_last_bit(path):
    ledger = started(path, SCHEDULE)
    before = ledger.accountant.epsilon(1e-5)
    ledger.close()
    again = Ledger(path, delta=1e-5)
    assert again.events() == RUNS
    assert again.accountant.epsilon(1e-5) == before
    assert again.accountant.rdp().tolist() == ledger.accountant.rdp().tolist()


def test_a_reopened_ledger_goes_on_where_it_stopped(path):
    started(path, SCHEDULE[:3]).close()
    again = Ledger(path, delta=1e-5)
    again.begin(first_step=3, environment="cpu")
    again.reserve(3, SCHEDULE[3])
    again.reserve(4, SCHEDULE[4])
    assert again.events() == RUNS
    assert again.accountant.epsilon(1e-5) == epsilon_of(SCHEDULE)


def test_settling_changes_no_cost(path):
    ledger = started(path, SCHEDULE)
    before = ledger.accountant.epsilon(1e-5)
    for number in range(5):
        ledger.settle(number, checksum=number)
    assert ledger.accountant.epsilon(1e-5) == before
    assert ledger.events() == RUNS


def test_a_step_is_charged_once_in_an_attempt():
    ledger = started(events=[step()])
    assert ledger.is_charged(0)
    assert not ledger.is_charged(1)
    with pytest.raises(LedgerError, match="step 0: already charged in attempt 0"):
        ledger.reserve(0, step())
    assert len(ledger) == 1
    assert ledger.accountant.epsilon(1e-5) == epsilon_of([step()])


def test_settling_what_was_not_reserved_is_refused():
    ledger = started(events=[step()])
    with pytest.raises(LedgerError, match="step 1: settled without being reserved"):
        ledger.settle(1, checksum=5)


def test_settling_twice_is_refused_and_keeps_the_first_checksum():
    ledger = started(events=[step()])
    ledger.settle(0, checksum=5)
    with pytest.raises(LedgerError, match="step 0"):
        ledger.settle(0, checksum=6)
    assert ledger.repeat(0, step()) == 5


@pytest.mark.parametrize("checksum", [0, -(2**63), 2**63 - 1])
def test_a_repeated_step_is_held_to_its_checksum(path, checksum):
    ledger = started(path, [step()])
    ledger.settle(0, checksum)
    ledger.close()
    again = started(path)
    assert again.repeat(0, step()) == checksum


def test_a_reserved_step_that_never_settled_has_no_checksum():
    assert started(events=[step()]).repeat(0, step()) is None


def test_repeating_as_another_event_is_refused():
    ledger = started(events=[step(), step(2.0)])
    for other in (step(2.0), step(3.0)):
        with pytest.raises(LedgerError, match="step 0: what would run is not what was charged"):
            ledger.repeat(0, other)


def test_repeating_what_was_never_charged_is_refused():
    with pytest.raises(LedgerError, match="step 7: what would run is not what was charged"):
        started(events=[step()]).repeat(7, step())


def test_a_copy_holds_the_same_and_leaves_the_original_open(tmp_path):
    ledger = started(events=SCHEDULE)
    ledger.settle(2, checksum=9)
    ledger.copy_to(tmp_path / "copy.sqlite")
    copy = started(tmp_path / "copy.sqlite")
    assert copy.events() == RUNS
    assert copy.repeat(2, SCHEDULE[2]) == 9
    ledger.reserve(5, step())
    assert (len(ledger), len(copy)) == (6, 5)


@pytest.mark.parametrize("delta", [0.0, 1.0, float("nan")])
def test_a_delta_outside_its_domain_is_refused(path, delta):
    with pytest.raises(InvalidValue, match="delta"):
        Ledger(path, delta=delta)
    assert not path.exists()


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_outside_its_domain_is_refused(path, budget):
    with pytest.raises(InvalidValue, match=f"epsilon = {budget}: must be > 0"):
        Ledger(path, delta=1e-5, budget=budget)
    assert not path.exists()


def test_a_step_that_is_paid_for_elsewhere_has_its_row_all_the_same(tmp_path):
    """The no-op event: one charge for the whole, one row a step, read back from disk."""
    whole = Gaussian(noise_multiplier=2.0)
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(Ledger(path, delta=1e-5, budget=3.0)) as ledger:
        ledger.begin(first_step=0, environment="cpu")
        ledger.reserve(0, whole)
        for step in range(1, 4):
            ledger.reserve(step, NoCost())
            ledger.settle(step, checksum=step)
        paid = ledger.epsilon()
    with contextlib.closing(Ledger(path, delta=1e-5, resumed=True)) as ledger:
        assert ledger.events() == [(whole, 1), (NoCost(), 3)]
        assert len(ledger) == 4
        assert ledger.epsilon() == paid == exact().compose(whole).epsilon(1e-5).upper
