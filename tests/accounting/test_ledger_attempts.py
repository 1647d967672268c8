"""When a resumed run may repeat what it paid for, and when it pays again."""

import pytest

from accountant import Gaussian, Ledger, LedgerError, PoissonSampled, RdpAccountant

STEP = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.0))


@pytest.fixture
def ledger(tmp_path):
    """Attempt 0, begun at step 10 on "cpu", with steps 10 to 12 charged."""
    ledger = Ledger(tmp_path / "ledger.sqlite", delta=1e-5)
    assert ledger.begin(first_step=10, environment="cpu") == 0
    for step in (10, 11, 12):
        ledger.reserve(step, STEP)
    return ledger


@pytest.mark.parametrize("first_step", [10, 11, 13])
def test_the_same_environment_goes_on_with_the_attempt(ledger, first_step):
    assert ledger.begin(first_step=first_step, environment="cpu") == 0
    assert ledger.is_charged(12)


def test_another_environment_opens_another_attempt(ledger):
    assert ledger.begin(first_step=12, environment="cuda") == 1
    assert not ledger.is_charged(12)


def test_a_device_that_cannot_repeat_opens_another_attempt(ledger):
    assert ledger.begin(first_step=12, environment="cpu", repeatable=False) == 1


def test_a_checkpoint_from_before_the_attempt_opens_another(ledger):
    assert ledger.begin(first_step=9, environment="cpu") == 1


@pytest.mark.parametrize(("kept_in", "first_step", "attempt"), [(0, 12, 0), (1, 12, 1), (3, 10, 0)])
def test_a_checkpoint_of_another_attempt_opens_another_but_where_this_one_began(
    ledger, kept_in, first_step, attempt
):
    assert ledger.begin(first_step=first_step, environment="cpu", kept_in=kept_in) == attempt


def test_an_ended_attempt_is_not_gone_on_with(ledger):
    ledger.end_attempt()
    assert ledger.begin(first_step=12, environment="cpu") == 1


def test_an_ended_attempt_stays_ended_even_where_the_environment_has_no_name(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", delta=1e-5)
    ledger.begin(first_step=0, environment="")
    ledger.end_attempt()
    assert ledger.begin(first_step=0, environment="") == 1


def test_only_the_last_attempt_can_go_on(ledger):
    ledger.begin(first_step=12, environment="cuda")
    assert ledger.begin(first_step=12, environment="cpu") == 2
    assert ledger.begin(first_step=12, environment="cpu") == 2


def test_the_attempt_survives_closing_the_file(ledger, tmp_path):
    ledger.begin(first_step=11, environment="cuda")
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite", delta=1e-5)
    assert again.begin(first_step=11, environment="cuda") == 1


def test_the_steps_of_both_attempts_are_paid(ledger):
    ledger.begin(first_step=11, environment="cuda")
    for step in (11, 12, 13):
        ledger.reserve(step, STEP)
    assert len(ledger) == 6
    assert ledger.events() == [(STEP, 6)]
    assert ledger.accountant.epsilon(1e-5) == RdpAccountant().compose(STEP, 6).epsilon(1e-5)


def test_a_new_attempt_cannot_settle_what_an_old_one_reserved(ledger):
    ledger.begin(first_step=12, environment="cuda")
    with pytest.raises(LedgerError, match="step 12: settled without being reserved"):
        ledger.settle(12, checksum=2)


def test_a_checksum_belongs_to_its_attempt(ledger):
    ledger.settle(12, checksum=1)
    ledger.begin(first_step=12, environment="cuda")
    ledger.reserve(12, STEP)
    assert ledger.repeat(12, STEP) is None
    ledger.settle(12, checksum=2)
    assert ledger.repeat(12, STEP) == 2


@pytest.mark.parametrize(
    "use",
    [
        lambda ledger: ledger.reserve(0, STEP),
        lambda ledger: ledger.repeat(0, STEP),
        lambda ledger: ledger.settle(0, checksum=1),
        lambda ledger: ledger.is_charged(0),
        lambda ledger: ledger.end_attempt(),
    ],
    ids=["reserve", "repeat", "settle", "is_charged", "end_attempt"],
)
def test_use_before_begin_is_out_of_turn(use):
    with pytest.raises(LedgerError):
        use(Ledger(None, delta=1e-5))
