"""The guarantee in words: what is printed must still hold."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import Gaussian, PoissonSampled
from accountant.statement import round_up, state


@given(st.floats(0, 1e12), st.integers(0, 9))
@settings(max_examples=300)
def test_a_printed_epsilon_is_never_below_the_true_one(value, digits):
    printed = Fraction(round_up(value, digits))
    assert Fraction(value) <= printed < Fraction(value) + Fraction(1, 10**digits)


@pytest.mark.parametrize(
    ("value", "digits", "printed"),
    [
        (0.0, 7, "0.0000000"),
        (1e-9, 7, "0.0000001"),
        (0.5, 4, "0.5000"),
        (1e22, 1, "1" + 22 * "0" + ".0"),
    ],
)
def test_a_figure_is_printed_in_plain_decimals(value, digits, printed):
    assert round_up(value, digits) == printed


def test_a_huge_epsilon_can_still_be_printed():
    assert float(round_up(1e30, 7)) == 1e30


def test_the_statement_names_epsilon_delta_relation_and_mechanism():
    step = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.3))
    words = " ".join(state([(step, 3600)], 0.94220021, 1e-5).split())
    assert "ε = 0.9423 and δ = 1e-05" in words
    assert "differ by adding or removing one record" in words
    assert "3600 × Gaussian noise of 1.3 × sensitivity on a Poisson sample" in words
    assert "with probability 0.01" in words


def test_a_long_schedule_is_told_by_its_first_and_last_step():
    events = [(Gaussian(noise_multiplier=float(noise)), 10) for noise in range(9, 1, -1)]
    words = state(events, 1.0, 1e-5)
    assert "80 releases, from Gaussian noise of 9 × sensitivity to" in words
    assert words.endswith("Gaussian noise of 2 × sensitivity.")
