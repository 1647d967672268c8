"""The ends of every range: hardly any noise, hardly any δ, far more steps than anyone runs."""

import math

import pytest

from accountant import (
    FixedSizeSampled,
    Gaussian,
    InvalidValue,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RdpAccountant,
    Relation,
)


def step(rate, noise):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


def composed(*parts, **options):
    accountant = PldAccountant(**options)
    accountant.compose_all(parts)
    return accountant


@pytest.mark.parametrize("delta", [1e-30, 1e-100, 1e-290, 0.5, 0.999, 1 - 1e-15])
@pytest.mark.parametrize("part", [(step(0.01, 1.0), 10), (Gaussian(noise_multiplier=1.0), 10)])
def test_any_delta_has_an_interval(part, delta):
    bounds = composed(part).epsilon(delta)
    assert 0 <= bounds.lower <= bounds.upper < math.inf
    assert bounds.lower <= RdpAccountant().compose(*part).epsilon(delta).upper


@pytest.mark.parametrize("noise", [1e-8, 1e-3, 0.005, 1e5, 1e8, 1e200])
def test_any_noise_has_an_interval(noise):
    bounds = composed((step(0.5, noise), 100)).epsilon(1e-5)
    assert 0 <= bounds.lower <= bounds.upper < math.inf
    if noise >= 1e8:
        assert bounds.upper == 0


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-100, 1e-20, 1e-12])
@pytest.mark.parametrize("count", [1, 1000])
def test_a_record_that_is_never_seen_costs_next_to_nothing(rate, count):
    bounds = composed((step(rate, 1.0), count)).epsilon(1e-5)
    assert bounds.lower == 0
    assert bounds.upper < 0.5


@pytest.mark.parametrize("count", [10**6, 10**9, 10**12])
def test_any_number_of_steps_has_an_interval(count):
    bounds = composed((step(1e-3, 20.0), count)).epsilon(1e-5)
    assert 0 <= bounds.lower <= bounds.upper < math.inf


@pytest.mark.parametrize("width", [0.0, -1e-4, math.inf, math.nan])
def test_a_width_that_is_none_is_refused(width):
    accountant = composed((step(0.01, 1.0), 100))
    with pytest.raises(InvalidValue, match=f"^width = {width}: must be a number > 0"):
        accountant.epsilon(1e-5, width)


def test_an_epsilon_that_is_not_a_number_is_refused():
    with pytest.raises(InvalidValue, match=r"^epsilon = nan: must be a number"):
        composed((step(0.01, 1.0), 100)).delta(math.nan)


def test_an_infinite_epsilon_leaves_what_is_revealed_for_certain():
    finite = composed((step(0.01, 1.0), 100)).delta(math.inf)
    assert (finite.lower, finite.upper) == (0.0, 0.0)
    revealed = composed((step(0.01, 0.0), 2)).delta(math.inf)
    assert revealed.lower == revealed.upper == pytest.approx(1 - 0.99**2, rel=1e-12)


def test_a_delta_above_what_is_revealed_leaves_epsilon_open():
    accountant = composed((step(0.01, 0.0), 1))
    assert accountant.epsilon(1e-3).lower == math.inf
    above = accountant.epsilon(0.02)
    assert above.lower == 0 <= above.upper


def test_noises_told_by_fewer_hold_what_all_of_them_cost():
    parts = [(step(0.01, 1 + i / 40), 20 + i) for i in range(30)]
    exact = composed(*parts).epsilon(1e-5)
    for most in (2, 7, 15):
        coarse = composed(*parts, most_events=most).epsilon(1e-5)
        assert coarse.lower <= exact.lower
        assert exact.upper <= coarse.upper
        assert coarse.upper - coarse.lower <= 1.5 / most * exact.upper


def test_other_mechanisms_among_thousands_of_noises_are_kept():
    parts = [(step(0.01, 1 + i / 40), 20) for i in range(12)]
    parts.append((Laplace(noise_multiplier=20.0), 30))
    exact = composed(*parts).epsilon(1e-5)
    coarse = composed(*parts, most_events=4).epsilon(1e-5)
    assert coarse.lower <= exact.lower <= exact.upper <= coarse.upper


@pytest.mark.parametrize(
    ("batch", "delta", "width"),
    [
        (9, 0.0016305970172907356, 0.00011578198297465475),
        (5, 0.010946747618007716, 0.000166313142144748),
    ],
)
def test_hardly_any_noise_on_a_sample_of_fixed_size_is_held(batch, delta, width):
    """Between the ends of the interval there must be something."""
    inner = Gaussian(noise_multiplier=0.01, relation=Relation.REPLACE_ONE)
    release = FixedSizeSampled(dataset_size=10, batch_size=batch, event=inner)
    bounds = composed((release, 1)).epsilon(delta, width)
    assert bounds.lower <= bounds.upper


@pytest.mark.parametrize("part", [(step(0.5, 0.02), 10**6), (step(0.999, 1.0), 2_500_000)])
def test_an_epsilon_of_millions_is_a_number(part):
    for width in (None, 1e-2):
        bounds = composed(part).epsilon(1e-5, width)
        assert 0 <= bounds.lower <= bounds.upper < math.inf


@pytest.mark.parametrize("noise", [1e-160, 1e-20])
def test_a_gaussian_release_with_next_to_no_noise_has_an_interval(noise):
    assert composed((Gaussian(noise_multiplier=noise), 1)).epsilon(1e-5).upper > 1e30


def test_a_gaussian_release_with_next_to_no_signal_is_held_from_above():
    """δ(0) = μ/√(2π) is above δ, so that ε > 0, if only by 1e-16."""
    assert composed((Gaussian(noise_multiplier=1e17), 1)).epsilon(1e-30).upper > 0


@pytest.mark.parametrize("epsilon", [1000.0, -math.inf])
def test_delta_at_any_epsilon_is_a_number(epsilon):
    for part in [(Gaussian(noise_multiplier=0.02), 1), (step(0.01, 1.0), 10)]:
        bounds = composed(part).delta(epsilon)
        assert 0 <= bounds.lower <= bounds.upper <= 1
