"""The ends of what doubles hold: δ down to the least float, ε next to nothing, rates of 1e-15.

Truths are written out from the densities, at many digits.
"""

import math

import mpmath
import pytest

from accountant import (
    DeltaBounds,
    DiscreteGaussian,
    EpsilonBounds,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    PrivacyError,
    RandomizedResponse,
    RdpAccountant,
    Relation,
)

mpf = mpmath.mpf
LEAST = 5e-324


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(50):
        yield


def step(rate, noise, **options):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise), **options)


def epsilon(event, count, delta, width=None):
    return PldAccountant().compose(event, count).epsilon(delta, width)


def removed(q, sigma, x):
    """δ(x) of (1 − q) N(0, σ²) + q N(1, σ²) against N(0, σ²)."""
    ratio = (mpmath.expm1(x) + q) / q
    if ratio <= 0:
        return -mpmath.expm1(x)
    z = sigma * mpmath.log(ratio) + 1 / (2 * sigma)  # in deviations
    tail = mpmath.ncdf(-z)
    return (1 - q) * tail + q * mpmath.ncdf(1 / sigma - z) - mpmath.exp(x) * tail


def two_removed(q, sigma, x):
    """The same of two releases: the second seen through every outcome of the first."""
    q, sigma, x = mpf(q), mpf(sigma), mpf(x)
    mu = 1 / sigma

    def seen(z):
        density = (1 - q) * mpmath.npdf(z) + q * mpmath.npdf(z, mu)
        return density * removed(q, sigma, x - mpmath.log1p(q * mpmath.expm1(mu * z - mu**2 / 2)))

    alone = sigma * mpmath.log((mpmath.expm1(x) + q) / q) + mu / 2
    places = [mpf(k) for k in range(-12, int(alone) + 7)]
    return mpmath.quad(seen, sorted({*places, alone, alone - mpf("0.01")}), maxdegree=4)


def inverted(delta_at, delta, high):
    """ε ≥ 0 of a falling δ(ε), by bisection."""
    low, high = mpf(0), mpf(high)
    if delta_at(low) <= delta:
        return low
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return high


def is_held(bounds, exact, within):
    assert mpf(bounds.lower) <= exact <= mpf(bounds.upper), (bounds, float(exact))
    assert bounds.upper - bounds.lower <= within * bounds.upper


@pytest.mark.parametrize("q", [LEAST, 1e-300, 1e-15, 1e-13, 1e-12, 1e-3, 0.5])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("delta", [LEAST, 1e-300, 1e-200, 1e-100, 1e-14])
def test_one_step_of_tiny_rate_and_delta_is_held_to_many_digits(q, sigma, delta):
    """At q = 1e-12, σ = 10, δ = 1e-200 the upper end was 1.1e-11 and the truth is 1.74e-11."""
    exact = mpf(0)
    if delta < q:
        whole = mpf(delta) / mpf(q)
        mu = 1 / mpf(sigma)

        def unsampled(x):
            tail = mpmath.ncdf(-x / mu - mu / 2)
            return mpmath.ncdf(mu / 2 - x / mu) - mpmath.exp(x) * tail

        inner = inverted(unsampled, whole, mu * mu / 2 + mu * 40)
        exact = mpmath.log1p(mpf(q) * mpmath.expm1(inner))
    is_held(epsilon(step(q, sigma), 1, delta), exact, 1e-6)


def test_the_step_that_was_understated_costs_what_its_closed_form_says():
    bounds = epsilon(step(1e-12, 10.0), 1, 1e-200)
    assert 1.7417e-11 < bounds.lower <= bounds.upper < 1.7419e-11


@pytest.mark.parametrize(
    ("q", "sigma", "delta"),
    [(1e-15, 1.0, 1e-100), (1e-12, 10.0, 1e-150), (1e-13, 3.0, 1e-120), (1e-6, 1.0, 1e-12)],
)
def test_two_steps_of_tiny_rate_and_delta_are_held(q, sigma, delta):
    bounds = epsilon(step(q, sigma), 2, delta)
    least, most = (two_removed(q, sigma, end) / delta for end in (bounds.upper, bounds.lower))
    assert least * (1 - mpf("2e-4")) <= 1 <= most * (1 + mpf("2e-4"))  # as good as the quadrature
    assert bounds.upper < 1.2 * bounds.lower


@pytest.mark.parametrize("count", [2, 5, 1000])
def test_more_steps_than_one_never_cost_less(count):
    for q, sigma, delta in [(1e-15, 1.0, 1e-100), (1e-12, 10.0, 1e-200), (1e-14, 0.5, 1e-300)]:
        one, many = epsilon(step(q, sigma), 1, delta), epsilon(step(q, sigma), count, delta)
        assert one.lower <= many.upper
        assert many.upper <= count * one.upper * 1.5


@pytest.mark.parametrize("delta", [LEAST, 1e-310, 1e-300, 1e-250])
@pytest.mark.parametrize(
    ("event", "count"),
    [
        (step(256 / 60_000, 1.1), 14_063),  # as the shell was asked: ZeroDivisionError
        (step(0.1, 2.0, group_size=3), 100),
        (PoissonSampled(sampling_rate=0.01, event=Laplace(noise_multiplier=2.0)), 1000),
        (RandomizedResponse(noise_parameter=0.5), 40),
    ],
)
def test_any_delta_above_zero_has_an_interval_of_the_usual_width(event, count, delta):
    bounds = epsilon(event, count, delta)
    assert bounds.narrow
    assert bounds.lower > 0
    assert bounds.lower <= RdpAccountant().compose(event, count).epsilon(delta).upper
    assert epsilon(event, count, 1e-200).upper < bounds.lower * 1.1


@pytest.mark.parametrize(
    ("rate", "steps", "delta", "least", "most"),
    [  # least, most: 0.00408 … 0.00498 and 0.00704 … 0.00707 before
        (1e-6, 300_000, 1e-12, 0.004090, 0.004102),
        (1e-6, 1_000_000, 1e-11, 0.007050, 0.007062),
        (1e-7, 1_000_000, 1e-13, 1e-4, 0.01),
        (1e-8, 100, 1e-14, 1e-9, 0.01),
    ],
)
def test_tiny_epsilon_is_as_narrow_as_promised(rate, steps, delta, least, most):
    bounds = epsilon(step(rate, 1.0), steps, delta)
    assert bounds.upper - bounds.lower <= 1e-3 * bounds.upper
    assert bounds.narrow
    assert least <= bounds.lower <= bounds.upper <= most


def test_an_interval_wider_than_asked_says_so():
    wide = epsilon(step(1e-13, 3.0), 2, 1e-120)
    assert wide.upper - wide.lower > 1e-3 * wide.upper
    assert not wide.narrow
    assert not epsilon(ExponentialMechanism(epsilon=1.0), 2, 1e-5).narrow
    assert epsilon(step(0.01, 1.0), 100, 1e-5).narrow


def discrete(sigma, shift, x):
    """δ(x) of discrete Gaussians ``shift`` apart."""
    s = 2 * mpf(sigma) ** 2
    far = range(-int(40 * sigma) - 2 * shift - 40, int(40 * sigma) + 2 * shift + 40)
    norm = mpmath.fsum(mpmath.exp(-(mpf(k) ** 2) / s) for k in far)
    gaps = (mpmath.exp(-(mpf(k - shift) ** 2) / s) - mpmath.exp(x - mpf(k) ** 2 / s) for k in far)
    return mpmath.fsum(gap for gap in gaps if gap > 0) / norm


@pytest.mark.parametrize(
    ("sigma", "shift", "delta"), [(0.3, 1, 1e-5), (0.3, 1, 1e-300), (1.0, 2, 1e-5), (2.0, 1, 0.01)]
)
def test_a_lone_discrete_gaussian_is_held_to_many_digits(sigma, shift, delta):
    release = DiscreteGaussian(noise_multiplier=sigma / shift, sensitivity=shift)
    exact = inverted(lambda x: discrete(sigma, shift, x), delta, 60 * (shift / sigma + 1) ** 2)
    is_held(epsilon(release, 1, delta), exact, 1e-10)


def test_the_discrete_gaussian_of_which_nothing_was_known_from_below():
    bounds = epsilon(DiscreteGaussian(noise_multiplier=0.3), 1, 1e-5)
    assert 16.66 < bounds.lower <= bounds.upper < 16.67


@pytest.mark.parametrize("delta", [1e-300, 1e-9, 0.01])
def test_a_lone_choice_by_the_exponential_mechanism_costs_what_two_outcomes_attain(delta):
    size = mpf(2)

    def worst(x):
        def tell(t):  # outcomes of losses t and t − ε, P of the first solves for a whole of one
            q = (1 - mpmath.exp(t - size)) / (mpmath.exp(t) - mpmath.exp(t - size))
            return q * (mpmath.exp(t) - mpmath.exp(x))

        best = mpmath.findroot(lambda t: mpmath.diff(tell, t), (x + size) / 2)
        return tell(best)

    exact = inverted(worst, delta, size * (1 - mpf("1e-160")))
    bounds = epsilon(ExponentialMechanism(epsilon=2.0), 1, delta)
    assert mpf(bounds.lower) * (1 - mpf("1e-15")) <= exact <= mpf(bounds.upper)


@pytest.mark.parametrize(
    ("event", "most"),
    [
        (Laplace(noise_multiplier=0.25), 4.0),
        (RandomizedResponse(noise_parameter=1e-310, categories=5), 717.0),
        (PoissonSampled(sampling_rate=1e-9, event=Laplace(noise_multiplier=0.25)), 6e-8),
    ],
)
def test_a_lone_bounded_loss_comes_within_delta_of_its_bound(event, most):
    bounds = epsilon(event, 1, 1e-30)
    assert 0.8 * most < bounds.lower <= bounds.upper <= most * (1 + 1e-14)
    assert bounds.upper - bounds.lower <= 1e-12 * bounds.upper


@pytest.mark.parametrize("kind", [EpsilonBounds, DeltaBounds])
@pytest.mark.parametrize(
    ("lower", "upper"), [(0.2, 0.1), (math.nan, 1.0), (0.0, math.nan), (-0.1, 0.1)]
)
def test_bounds_that_contradict_each_other_cannot_be_made(kind, lower, upper):
    with pytest.raises(PrivacyError, match="bounds contradict each other; nothing is stated"):
        kind(lower, upper)


@pytest.mark.parametrize("delta", [LEAST, 1e-100, 1e-5, 1 - 1e-16])
@pytest.mark.parametrize("noise", [LEAST, 1e-310, 1e-160, 1e-3, 1e8, 1e160, 1e308])
def test_no_noise_is_too_little_or_too_much_for_an_answer(noise, delta):
    replaced = Gaussian(noise_multiplier=noise, relation=Relation.REPLACE_ONE)
    plain = Gaussian(noise_multiplier=noise)
    for event, count in [
        (plain, 1),
        (plain, 10**9),
        (PoissonSampled(sampling_rate=1e-12, event=plain), 1),
        (PoissonSampled(sampling_rate=0.1, event=plain, group_size=4), 3),
        (PoissonSampled(sampling_rate=0.1, event=replaced), 3),
        (Laplace(noise_multiplier=noise), 1),
        (Laplace(noise_multiplier=noise), 2),
        (DiscreteGaussian(noise_multiplier=noise), 1),
        (PoissonSampled(sampling_rate=0.1, event=DiscreteGaussian(noise_multiplier=noise)), 1),
    ]:
        bounds = epsilon(event, count, delta)
        assert 0 <= bounds.lower <= bounds.upper
