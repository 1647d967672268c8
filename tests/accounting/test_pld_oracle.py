"""One release, or a few, in closed form at many digits: the interval holds what mpmath finds.

Nothing is shared with the code under test: each δ(ε) is written out from the densities.
"""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from accountant import (
    DiscreteGaussian,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RandomizedResponse,
    Relation,
)

mpf = mpmath.mpf
ADDED, REPLACED = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(40):
        yield


def sampled(rate, event, group_size=1):
    return PoissonSampled(sampling_rate=rate, event=event, group_size=group_size)


def check_holds(bounds, exact):
    assert mpf(bounds.lower) <= exact <= mpf(bounds.upper), (bounds, float(exact))


def where_it_falls_to(delta, delta_at):
    """The least ε ≥ 0 at which a falling δ(ε) is at most δ, by bisection from above."""
    if delta_at(mpf(0)) <= delta:
        return mpf(0)
    low, high = mpf(0), mpf(1e-12)
    while delta_at(high) > delta:
        low, high = high, 4 * high
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return high


def removed(q, sigma, epsilon):
    """(1 − q) N(0, σ²) + q N(1, σ²) against N(0, σ²)."""
    ratio = (mpmath.exp(epsilon) - 1 + q) / q
    if ratio <= 0:
        return -mpmath.expm1(epsilon)
    z = sigma**2 * mpmath.log(ratio) + mpf(1) / 2
    tail = mpmath.ncdf(-z / sigma)
    return (1 - q) * tail + q * mpmath.ncdf((1 - z) / sigma) - mpmath.exp(epsilon) * tail


def added(q, sigma, epsilon):
    """N(0, σ²) against (1 − q) N(0, σ²) + q N(1, σ²)."""
    ratio = (mpmath.exp(-epsilon) - 1 + q) / q
    if ratio <= 0:
        return mpf(0)
    z = sigma**2 * mpmath.log(ratio) + mpf(1) / 2
    mass = mpmath.ncdf(z / sigma)
    mixed = (1 - q) * mass + q * mpmath.ncdf((z - 1) / sigma)
    return mass - mpmath.exp(epsilon) * mixed


def one_step(q, sigma, delta):
    q, sigma = mpf(q), mpf(sigma)
    ways = [lambda e: removed(q, sigma, e), lambda e: added(q, sigma, e)]
    return max(where_it_falls_to(mpf(delta), way) for way in ways)


@pytest.mark.parametrize("q", [0.003, 0.05, 0.5, 1 - 1e-6, 1 - 1e-12])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 300.0])
@pytest.mark.parametrize("delta", [1e-30, 1e-9, 1e-3])
def test_one_sampled_release_is_held(q, sigma, delta):
    release = sampled(q, Gaussian(noise_multiplier=sigma))
    check_holds(PldAccountant().compose(release).epsilon(delta), one_step(q, sigma, delta))


@pytest.mark.parametrize("q", [1e-12, 1e-9, 1e-6, 1e-4])
@pytest.mark.parametrize("sigma", [0.2, 1.0, 1e4])
def test_a_release_that_hardly_ever_sees_the_record_is_held(q, sigma):
    release = sampled(q, Gaussian(noise_multiplier=sigma))
    bounds = PldAccountant().compose(release).epsilon(q / 100)
    check_holds(bounds, one_step(q, sigma, q / 100))


@pytest.mark.parametrize(("q", "sigma", "delta"), [(0.1, 1.3, 1e-5), (0.6, 0.4, 1e-9)])
def test_one_sampled_release_is_held_at_every_width(q, sigma, delta):
    exact = one_step(q, sigma, delta)
    accountant = PldAccountant().compose(sampled(q, Gaussian(noise_multiplier=sigma)))
    for width in (0.1, 1e-2, 1e-3, 1e-5, 1e-7):
        bounds = accountant.epsilon(delta, width)
        check_holds(bounds, exact)
        assert bounds.upper - bounds.lower <= width * bounds.upper


@pytest.mark.parametrize(("q", "sigma", "k"), [(0.02, 1.0, 5), (0.5, 3.0, 3), (1 - 1e-9, 9.0, 16)])
def test_one_release_of_a_sampled_group_is_held(q, sigma, k):
    """The binomial mixture against N(0, σ²), and the other way: the loss rises with the outcome."""
    release = sampled(q, Gaussian(noise_multiplier=sigma), group_size=k)
    weights = [mpmath.binomial(k, j) * mpf(q) ** j * (1 - mpf(q)) ** (k - j) for j in range(k + 1)]
    s = mpf(sigma)

    def tail(z):
        return mpmath.fsum(w * mpmath.ncdf((j - z) / s) for j, w in enumerate(weights))

    def loss(z):
        terms = (w * mpmath.exp((2 * j * z - j * j) / (2 * s * s)) for j, w in enumerate(weights))
        return mpmath.log(mpmath.fsum(terms))

    bounds = PldAccountant().compose(release).epsilon(1e-5, width=1e-6)
    for epsilon, side in ((mpf(bounds.lower), 1), (mpf(bounds.upper), -1)):
        above, below = where_it_rises_to(epsilon, loss), where_it_rises_to(-epsilon, loss)
        if_removed = tail(above) - mpmath.exp(epsilon) * mpmath.ncdf(-above / s)
        if_added = mpmath.ncdf(below / s) - mpmath.exp(epsilon) * (1 - tail(below))
        assert side * (max(if_removed, if_added) - mpf(1e-5)) >= 0


def where_it_rises_to(value, loss):
    """The outcome of that loss, or one far out on the left where all are larger."""
    low, high = mpf(-4000), mpf(4000)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) < value else (low, middle)
    return low


@pytest.mark.parametrize(("size", "batch", "sigma"), [(10, 9, 0.05), (10, 1, 0.2), (500, 5, 0.3)])
def test_one_release_over_a_sample_of_fixed_size_is_held(size, batch, sigma):
    inner = Gaussian(noise_multiplier=sigma, relation=REPLACED)
    release = FixedSizeSampled(dataset_size=size, batch_size=batch, event=inner)
    exact = one_step(mpf(batch) / size, sigma, 1e-3)
    check_holds(PldAccountant().compose(release).epsilon(1e-3), exact)


def amplified(q, epsilon):
    """Sampling takes δ(ε) to q δ(ε) at log(1 + q (exp(ε) − 1)) [Balle et al. 2018, Theorem 8]."""
    return mpmath.log1p(mpf(q) * mpmath.expm1(epsilon))


@pytest.mark.parametrize("q", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_one_release_with_laplace_noise_is_held(q, scale):
    """δ(ε) = 1 − exp((ε − 1/b)/2)."""
    delta = q * 1e-3
    exact = amplified(q, max(1 / mpf(scale) + 2 * mpmath.log1p(-mpf(delta) / mpf(q)), mpf(0)))
    release = sampled(q, Laplace(noise_multiplier=scale))
    check_holds(PldAccountant().compose(release).epsilon(delta), exact)


@pytest.mark.parametrize("q", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_one_choice_of_an_exponential_mechanism_is_held_from_above(q, epsilon):
    """δ(x) = (1 − exp((x − ε)/2))²/(1 − exp(−ε)) [Dong, Durfee, Rogers 2020, Lemma 3.2]."""
    delta = q * 1e-4
    root = mpmath.sqrt(mpf(delta) / mpf(q) * -mpmath.expm1(-mpf(epsilon)))
    exact = amplified(q, mpf(epsilon) + 2 * mpmath.log1p(-root))
    release = sampled(q, ExponentialMechanism(epsilon=epsilon, relation=ADDED))
    check_holds(PldAccountant().compose(release).epsilon(delta), exact)


def best_second_choice(x, epsilon):
    if x >= epsilon:
        return 0.0
    if x <= -epsilon:
        return -math.expm1(x)
    return (1 - math.exp((x - epsilon) / 2)) ** 2 / -math.expm1(-epsilon)


def two_choices(x, epsilon):
    """The most that two choices, the second depending on the first, can make δ(x)."""
    most = 0.0
    for t in (epsilon * i / 500 for i in range(501)):
        p = math.exp(t) * (1 - math.exp(t - epsilon)) / (math.exp(t) - math.exp(t - epsilon))
        after = p * best_second_choice(x - t, epsilon)
        most = max(most, after + (1 - p) * best_second_choice(x - t + epsilon, epsilon))
    return most


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-3])
def test_two_choices_are_held_between_attained_and_allowed(epsilon, delta):
    bounds = PldAccountant().compose(ExponentialMechanism(epsilon=epsilon), 2).epsilon(delta)
    assert two_choices(bounds.lower, epsilon) >= delta
    assert two_choices(bounds.upper, epsilon) <= delta


def composed_delta(pairs, epsilon):
    """Σ (P − exp(ε) Q)₊ over all sequences of outcomes."""
    total = Fraction(0)
    for outcomes in itertools.product(*pairs):
        p = math.prod(a for a, _ in outcomes)
        q = math.prod(b for _, b in outcomes)
        total += max(p - epsilon * q, 0)
    return total


@pytest.mark.parametrize("parts", [[(0.5, 2, 4), (0.25, 5, 2)], [(0.75, 3, 6)], [(0.0625, 2, 7)]])
@pytest.mark.parametrize("ratio", [1, 2, 5])
def test_a_few_answers_cost_the_sum_over_all_sequences(parts, ratio):
    accountant = PldAccountant()
    pairs = []
    for p, k, count in parts:
        accountant.compose(RandomizedResponse(noise_parameter=p, categories=k), count)
        lie = Fraction(p) / k
        truth = 1 - (k - 1) * lie
        pairs += [[(truth, lie), (lie, truth), ((k - 2) * lie,) * 2]] * count
    exact = composed_delta(pairs, ratio)
    bounds = accountant.delta(math.log(ratio))
    assert Fraction(bounds.lower) <= exact * (1 + Fraction(1, 10**14))
    assert exact * (1 - Fraction(1, 10**14)) <= Fraction(bounds.upper)


def every_sequence(losses, masses, count):
    """Losses and probabilities of ``count`` independent outcomes together."""
    sums, products = losses, masses
    for _ in range(count - 1):
        sums = np.add.outer(sums, losses).ravel()
        products = np.multiply.outer(products, masses).ravel()
    return sums, products


@pytest.mark.parametrize(("noise", "shift", "count"), [(1.0, 1, 3), (0.7, 2, 2), (3.0, 1, 2)])
@pytest.mark.parametrize("q", [1.0, 0.2])
def test_a_few_discrete_gaussian_releases_are_held(noise, shift, count, q):
    sigma = noise * shift
    j = np.arange(-math.ceil(9 * sigma), math.ceil(9 * sigma) + shift + 1.0)
    weights = np.exp(-0.5 * (j / sigma) ** 2)
    weights /= weights.sum()
    ratios = 1 - q + q * np.exp(shift * (2 * j - shift) / (2 * sigma**2))
    ways = [(np.log(ratios), weights * ratios), (-np.log(ratios), weights)]
    event = DiscreteGaussian(noise_multiplier=noise, sensitivity=shift)
    accountant = PldAccountant().compose(sampled(q, event), count)
    for epsilon in (0.0, 0.03, 0.3):
        exact = 0.0
        for losses, masses in ways:
            sums, products = every_sequence(losses, masses, count)
            exact = max(exact, float(products @ np.maximum(-np.expm1(epsilon - sums), 0)))
        bounds = accountant.delta(epsilon)
        assert bounds.lower <= exact * (1 + 1e-11)
        assert exact * (1 - 1e-11) <= bounds.upper
