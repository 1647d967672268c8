"""Rényi curves beyond one Gaussian, against their defining integrals and sums at many digits.

Nothing is shared with the code under test: densities are written out and mpmath adds them up,
for both directions, record added and record removed.
"""

import mpmath
import numpy as np
import pytest

from accountant import (
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomizedResponse,
    RdpAccountant,
    Relation,
    ShuffledEpoch,
    renyi_divergence,
)
from accountant.dominating_pairs.of_events import domination
from accountant.dominating_pairs.pairs import log_moment

mpf = mpmath.mpf


def divergence(moment, order):
    """log(moment) / (α − 1), where the moment is E_P[(P/Q)^(α − 1)]."""
    return mpmath.log(moment) / (order - 1)


def check_from_above(event, order, truth, tolerance=1e-12):
    value = mpf(float(renyi_divergence(event, order)))
    assert -1e-13 <= value / truth - 1 <= tolerance, float(value / truth - 1)


def check_both_ways(event, order, moment):
    """``moment(p over q, order)`` is ∫ p^α q^(1 − α), called with the roles either way."""
    ways = [divergence(moment(removed, mpf(order)), mpf(order)) for removed in (True, False)]
    check_from_above(event, order, max(ways))
    for pair, truth in zip(domination(event).upper, ways, strict=True):
        value = mpf(log_moment(pair.nodes(order - 1, 0.0), order - 1)) / (mpf(order) - 1)
        assert abs(value / truth - 1) <= 2e-13, float(value / truth - 1)


def power(numerator, denominator, order):
    return numerator**order * denominator ** (1 - order)


SAMPLED = [  # q, order
    (1.0, 1.5),
    (0.3, 1.001),
    (0.02, 2.0),
    (0.02, 17.3),
    (1e-3, 1.01),
    (1e-6, 1.1),
    (1e-6, 64.0),
    (1e-9, 1.0001),
]


@pytest.mark.parametrize(("q", "order"), SAMPLED)
@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_laplace_noise_on_a_poisson_sample_is_its_integral(q, order, scale):
    """Outside [0, 1] the likelihood ratio is constant; only inside is there an integral."""
    event = PoissonSampled(sampling_rate=q, event=Laplace(noise_multiplier=scale))
    exact_q, b = mpf(q), mpf(scale)

    def moment(removed, alpha):
        def ratio(z):  # of (1 − q) Q + q P to Q, for Q at 0 and P at 1
            return 1 - exact_q + exact_q * mpmath.exp((abs(z) - abs(z - 1)) / b)

        def term(z):
            exponent = alpha if removed else 1 - alpha
            return ratio(z) ** exponent * mpmath.exp(-z / b) / (2 * b)

        left = term(mpf(0)) * b
        right = term(mpf(1)) * b
        return left + mpmath.quad(term, [0, 0.5, 1]) + right

    with mpmath.workdps(40):
        check_both_ways(event, order, moment)


@pytest.mark.parametrize(("q", "order"), SAMPLED)
@pytest.mark.parametrize(("noise", "sensitivity"), [(0.7, 1), (2.0, 3)])
def test_discrete_gaussian_noise_on_a_poisson_sample_is_its_sum(q, order, noise, sensitivity):
    inner = DiscreteGaussian(noise_multiplier=noise, sensitivity=sensitivity)
    event = PoissonSampled(sampling_rate=q, event=inner)
    exact_q, variance = mpf(q), (mpf(noise) * sensitivity) ** 2
    reach = int((order + 2) * sensitivity + 16 * noise * sensitivity)
    whole = range(-reach, reach + 1)

    def moment(removed, alpha):
        total = mpmath.fsum(mpmath.exp(-mpf(k * k) / (2 * variance)) for k in whole)

        def term(k):
            unshifted = mpmath.exp(-mpf(k * k) / (2 * variance)) / total
            shifted = mpmath.exp(-(mpf(k - sensitivity) ** 2) / (2 * variance)) / total
            mixed = (1 - exact_q) * unshifted + exact_q * shifted
            return power(mixed, unshifted, alpha) if removed else power(unshifted, mixed, alpha)

        return mpmath.fsum(map(term, whole))

    with mpmath.workdps(60):
        check_both_ways(event, order, moment)


GROUPS = [  # q, σ, k, order; from orders × records over noise of 60 on, a bound is given instead
    (0.2, 2.0, 2, 1.5),
    (0.01, 1.0, 3, 2.0),
    (0.01, 1.0, 3, 6.5),
    (1e-4, 1.3, 5, 1.01),
    (1e-6, 0.6, 4, 1.1),
    (0.9, 4.0, 7, 6.25),
    (0.9, 4.0, 20, 2.5),
    (0.001, 10.0, 40, 3.3),
]


@pytest.mark.parametrize(("q", "sigma", "size", "order"), GROUPS)
def test_a_sampled_group_is_a_binomial_mixture(q, sigma, size, order):
    event = PoissonSampled(sampling_rate=q, event=Gaussian(noise_multiplier=sigma), group_size=size)
    exact_q, mu = mpf(q), 1 / mpf(sigma)

    def moment(removed, alpha):
        powers = [  # the likelihood ratio is a polynomial in exp(μz)
            mpmath.binomial(size, j)
            * exact_q**j
            * (1 - exact_q) ** (size - j)
            * mpmath.exp(-((j * mu) ** 2) / 2)
            for j in range(size, -1, -1)
        ]

        def term(z):
            ratio = mpmath.polyval(powers, mpmath.exp(mu * z))
            return ratio ** (alpha if removed else 1 - alpha) * mpmath.npdf(z)

        shift = order * size / sigma
        left, right = -14 - (0 if removed else shift), 14 + (shift if removed else 0)
        return mpmath.quad(term, mpmath.linspace(left, right, int((right - left) / 3) + 1))

    with mpmath.workdps(24 if q > 1e-4 else 30):
        check_both_ways(event, order, moment)


@pytest.mark.parametrize("order", [1.001, 2.0, 40.0])
@pytest.mark.parametrize(("q", "sigma", "size"), [(0.01, 0.2, 8), (0.6, 0.05, 3), (1e-6, 0.7, 90)])
def test_a_group_under_little_noise_costs_no_less_than_its_likeliest_terms(q, sigma, size, order):
    """A ≥ Σ b_j^α exp(α(α − 1) j²/(2σ²)): (Σ x_j)^α ≥ Σ x_j^α for α ≥ 1."""
    event = PoissonSampled(sampling_rate=q, event=Gaussian(noise_multiplier=sigma), group_size=size)
    value = float(renyi_divergence(event, order))
    with mpmath.workdps(30):
        alpha, exact_q = mpf(order), mpf(q)
        terms = (
            (mpmath.binomial(size, j) * exact_q**j * (1 - exact_q) ** (size - j)) ** alpha
            * mpmath.exp(alpha * (alpha - 1) * j * j / (2 * mpf(sigma) ** 2))
            for j in range(size + 1)
        )
        assert value >= divergence(mpmath.fsum(terms), alpha) * (1 - mpf("1e-13"))
    assert value <= order * (size / sigma) ** 2 / 2 * (1 + 1e-12)


@pytest.mark.parametrize("order", [1.001, 2.5, 64.0])
@pytest.mark.parametrize(("noise", "sensitivity"), [(0.3, 1), (5.0, 1), (0.5, 4)])
def test_discrete_gaussian_noise_is_its_sum(noise, sensitivity, order):
    event = DiscreteGaussian(noise_multiplier=noise, sensitivity=sensitivity)
    with mpmath.workdps(40):
        alpha, variance = mpf(order), (mpf(noise) * sensitivity) ** 2
        reach = int((order + 2) * sensitivity + 16 * noise * sensitivity)
        whole = range(-reach, reach + 1)
        total = mpmath.fsum(mpmath.exp(-mpf(k * k) / (2 * variance)) for k in whole)
        terms = (
            mpmath.exp(-((1 - alpha) * k * k + alpha * mpf(k - sensitivity) ** 2) / (2 * variance))
            for k in whole
        )
        check_from_above(event, order, divergence(mpmath.fsum(terms) / total, alpha))


@pytest.mark.parametrize("order", [1.001, 2.5, 64.0])
@pytest.mark.parametrize("sensitivity", [1, 3])
def test_discrete_gaussian_noise_costs_at_most_what_gaussian_noise_does(sensitivity, order):
    """[Canonne, Kamath, Steinke 2020, Proposition 5]."""
    for noise in (0.2, 1.0, 30.0):
        event = DiscreteGaussian(noise_multiplier=noise, sensitivity=sensitivity)
        gaussian = float(renyi_divergence(Gaussian(noise_multiplier=noise), order))
        assert float(renyi_divergence(event, order)) <= gaussian * (1 + 1e-12)


@pytest.mark.parametrize("q", [1e-6, 0.1, 0.9])
@pytest.mark.parametrize("order", [1.01, 3.0, 50.0])
def test_answers_asked_of_a_poisson_sample_are_a_sum_of_two(q, order):
    inner = RandomizedResponse(noise_parameter=0.3, relation=Relation.ADD_OR_REMOVE_ONE)
    event = PoissonSampled(sampling_rate=q, event=inner)

    def moment(removed, alpha):
        truth = 1 - mpf(0.3) / 2
        before = [1 - truth, truth]
        after = [(1 - mpf(q)) * a + mpf(q) * b for a, b in zip(before, before[::-1], strict=True)]
        pairs = zip(after, before, strict=True) if removed else zip(before, after, strict=True)
        return mpmath.fsum(power(p, r, alpha) for p, r in pairs)

    with mpmath.workdps(40):
        check_both_ways(event, order, moment)


CORNERS = {  # the old record's vector and the new one's, none longer than the sensitivity
    "from zero": ((0, 0), (1, 0)),
    "to zero": ((1, 0), (0, 0)),
    "half each way": ((-0.5, 0), (0.5, 0)),
    "equilateral": ((1, 0), (0.5, 0.75**0.5)),
}


@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize(
    ("q", "sigma", "order"), [(0.01, 1.0, 2.0), (0.1, 1.0, 1.5), (0.01, 2.0, 9.0), (0.9, 1.0, 2.0)]
)
def test_a_record_replaced_in_a_poisson_sample_costs_no_less_than_neighbours_do(
    q, sigma, order, corners
):
    event = PoissonSampled(
        sampling_rate=q,
        event=Gaussian(noise_multiplier=sigma, relation=Relation.REPLACE_ONE),
    )
    axis = np.arange(-10, 10 + order / sigma, 0.1)
    plane = np.array(np.meshgrid(axis, axis))

    def density(corner):
        away = plane - np.reshape(corner, (2, 1, 1)) / sigma
        return np.exp(-(away**2).sum(axis=0) / 2) / (2 * np.pi)

    rest = (1 - q) * density((0, 0))
    before, after = (rest + q * density(corner) for corner in CORNERS[corners])
    moment = (before * (before / after) ** (order - 1)).sum() * 0.1**2
    neighbours = np.log(moment) / (order - 1)
    assert float(renyi_divergence(event, order)) >= neighbours * (1 - 1e-9)


def test_an_epoch_costs_what_one_release_costs():
    for inner in (
        ExponentialMechanism(epsilon=0.5),
        RandomizedResponse(noise_parameter=0.2, categories=7),
        Gaussian(noise_multiplier=1.5, relation=Relation.REPLACE_ONE),
    ):
        orders = [1.01, 2.0, 33.3]
        epoch = renyi_divergence(ShuffledEpoch(event=inner), orders)
        assert epoch.tolist() == renyi_divergence(inner, orders).tolist()


def test_a_hundred_choices_at_a_tenth_cost_two_and_a_sixth():
    """From the largest divergence of a bounded-range mechanism, which is about ε²α/8."""
    accountant = RdpAccountant().compose(ExponentialMechanism(epsilon=0.1), 100)
    assert accountant.epsilon(1e-5).upper == pytest.approx(2.1517336, abs=5e-7)
