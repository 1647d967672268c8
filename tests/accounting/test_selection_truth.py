"""The price of a search against exact laws of the best of K: never below, not far above."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import logsumexp

from accountant import Gaussian, RandomizedResponse
from accountant.errors import InvalidValue
from accountant.selection import TruncatedNegativeBinomial, best_of_random, searched

SHAPES = [-0.7, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0]
ORDERS = np.array([1.05, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 40.0, 100.0])


def generating(law, x):
    """E x^K in closed form."""
    up = -np.log((1 - x) + law.gamma * x)
    whole = -math.log(law.gamma)
    if law.eta == 0:
        return up / whole
    return np.expm1(law.eta * up) / math.expm1(law.eta * whole)


def best_of(law, runs):
    """The exact distribution of the best of K draws from ``runs``, worst outcome first."""
    return np.diff(generating(law, np.minimum(np.cumsum(np.append(0.0, runs)), 1.0)))


def divergence(p, q, orders):
    """Rényi, the larger of both ways, at each order."""

    def one_way(a, b):
        exponents = np.outer(orders, np.log(a)) + np.outer(1 - orders, np.log(b))
        return logsumexp(exponents, axis=1) / (orders - 1)

    return np.maximum(one_way(p, q), one_way(q, p))


def two_neighbours(seed, outcomes):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(outcomes, generator.choice([0.3, 1.0, 5.0])))
    q = p * np.exp(generator.normal(size=outcomes) * generator.choice([0.05, 0.3, 1.0, 2.0]))
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return p / p.sum(), q / q.sum()


RARE = [  # the best outcome is rare, and far rarer in the neighbour
    (np.array([1 - t, t]), np.array([1 - u, u]))
    for t, u in ((1e-3, 1e-7), (1e-5, 1e-11), (1e-6, 1e-13))
]


def cases():
    for p, q in [*(two_neighbours(seed, 2 + seed % 5) for seed in range(40)), *RARE]:
        for eta in SHAPES:
            for mean in (2.0, 20.0, 300.0):
                law = TruncatedNegativeBinomial.with_mean(mean, eta)
                truth = divergence(best_of(law, p), best_of(law, q), ORDERS)
                yield law, divergence(p, q, ORDERS), truth


CASES = list(cases())


def slack(bound):
    """The least of bound − truth over all cases, where ``bound`` is (law, curve) → curve."""
    return min(float(np.min(bound(law, curve) - truth)) for law, curve, truth in CASES)


def theorem(law, curve):
    return searched(ORDERS, curve, law)[0]


def share_of_the_mean(law):
    return math.log(law.mean) / (ORDERS - 1)


def without_the_mean(law, curve):
    return theorem(law, curve) - share_of_the_mean(law)


def without_the_second_order(law, curve):
    return curve + share_of_the_mean(law)


def without_gamma(law, curve):
    return curve + (1 + law.eta) * ((1 - 1 / ORDERS) * curve).min() + share_of_the_mean(law)


def with_eta_for_one_plus_eta(law, curve):
    right = theorem(law, curve) - without_the_second_order(law, curve)
    return without_the_second_order(law, curve) + right * law.eta / (1 + law.eta)


def test_the_bound_lies_above_the_exact_divergence_of_every_small_mechanism():
    assert slack(theorem) > -1e-9


@pytest.mark.parametrize(
    "planted",
    [without_the_mean, without_the_second_order, without_gamma, with_eta_for_one_plus_eta],
)
def test_a_term_that_is_forgotten_falls_below_the_truth_somewhere(planted):
    assert slack(planted) < -1e-3


@pytest.mark.parametrize("eta", [-0.5, 0.0, 1.0, 2.0])
def test_the_bound_is_nearly_attained(eta):
    """The worst for pure ε: a middle outcome likelier here, better ones likelier there.

    Its loss is (2 + η) ε, to which Theorem 2 tends as both orders grow.
    """
    rare, up = 1e-4, math.exp(0.5)
    p = np.array([1 - rare * up / 100 - rare, rare * up / 100, rare])
    q = np.array([1 - rare / 100 - rare * up, rare / 100, rare * up])
    law = TruncatedNegativeBinomial(eta=eta, gamma=1e-8)
    orders = np.array([10.0, 100.0, 1e3, 1e4, 1e5])
    truth = divergence(best_of(law, p), best_of(law, q), orders)
    bound, _ = searched(orders, divergence(p, q, orders), law)
    assert np.all(truth <= bound)
    assert bound[-1] < 1.06 * truth[-1]
    assert bound[-1] == pytest.approx((2 + eta) * 0.5, rel=0.01)


@pytest.mark.parametrize("eta", SHAPES)
@pytest.mark.parametrize("mean", [1.5, 10.0])
def test_a_search_over_randomized_response_keeps_its_delta(eta, mean):
    """ε at δ against the exact hockey-stick divergence of the best of K."""
    law = TruncatedNegativeBinomial.with_mean(mean, eta)
    event = RandomizedResponse(noise_parameter=0.7)
    epsilon = best_of_random([(event, 1)], law, 1e-3).epsilon
    one = best_of(law, np.array([0.35, 0.65]))
    other = best_of(law, np.array([0.65, 0.35]))
    for a, b in ((one, other), (other, one)):
        assert np.maximum(a - math.exp(epsilon) * b, 0).sum() <= 1e-3


def test_the_gaussian_mechanism_has_the_price_that_hand_computation_gives():
    """r(λ) = λ/(2σ²): the best second order is √(2σ² log(1/γ)), in closed form."""
    sigma, delta = 4.0, 1e-6
    law = TruncatedNegativeBinomial.with_mean(10, 1)
    other = math.sqrt(2 * sigma**2 * math.log(10))
    extra = 2 * ((other - 1) / (2 * sigma**2) + math.log(10) / other)
    orders = 1 + np.linspace(1, 60, 200_001)
    tail = (math.log(1 / delta) - np.log(orders) + math.log(10)) / (orders - 1)
    by_hand = orders / (2 * sigma**2) + extra + tail + np.log1p(-1 / orders)
    bound = best_of_random([(Gaussian(noise_multiplier=sigma), 1)], law, delta)
    assert by_hand.min() - 1e-9 <= bound.epsilon <= by_hand.min() * 1.002
    assert bound.other == pytest.approx(other, rel=0.07)


@pytest.mark.parametrize("eta", SHAPES)
def test_the_law_is_definition_1_to_fifty_digits(eta):
    law = TruncatedNegativeBinomial.with_mean(7.0, eta)
    told = np.exp(law.log_probabilities(100))
    with mpmath.workdps(50):
        gamma, shape = mpmath.mpf(law.gamma), mpmath.mpf(eta)
        for k in (1, 2, 10, 100):
            if eta:
                ways = mpmath.fprod((j + shape) / (j + 1) for j in range(k))
                exact = (1 - gamma) ** k * ways / (gamma**-shape - 1)
            else:
                exact = (1 - gamma) ** k / k / mpmath.log(1 / gamma)
            assert told[k - 1] == pytest.approx(float(exact), rel=1e-11)


def test_a_shape_whose_draws_might_never_end_is_refused():
    with pytest.raises(InvalidValue, match=r"^eta = -0\.99: is too low for 20 trials"):
        TruncatedNegativeBinomial.with_mean(20, -0.99)
