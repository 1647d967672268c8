"""The price of keeping the best of many runs, against searches worked out outcome by outcome."""

import math

import numpy as np
import pytest
from scipy import special, stats

from accountant import Gaussian, PoissonSampled, RdpAccountant
from accountant.errors import InvalidValue
from accountant.rdp.conversion import improved
from accountant.selection import (
    ORDERS,
    TruncatedNegativeBinomial,
    best_of_all,
    best_of_random,
    searched,
)

LAWS = [
    TruncatedNegativeBinomial.with_mean(mean, eta)
    for mean in (1.5, 5.0, 20.0)
    for eta in (-0.5, 0.0, 0.5, 1.0, 3.0)
]
STEP = [(PoissonSampled(sampling_rate=0.05, event=Gaussian(noise_multiplier=2.0)), 200)]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_law_sums_to_one_and_has_its_mean(law):
    probabilities = np.exp(law.log_probabilities(400_000))
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
    assert (probabilities * np.arange(1, 400_001)).sum() == pytest.approx(law.mean, rel=1e-6)


def test_geometric_and_logarithmic_laws_are_scipys():
    k = np.arange(1, 30)
    geometric = TruncatedNegativeBinomial(eta=1.0, gamma=0.1)
    assert np.allclose(np.exp(geometric.log_probabilities(29)), stats.geom(0.1).pmf(k))
    logarithmic = TruncatedNegativeBinomial(eta=0.0, gamma=0.1)
    assert np.allclose(np.exp(logarithmic.log_probabilities(29)), stats.logser(0.9).pmf(k))


@pytest.mark.parametrize("law", LAWS[5:], ids=str)
def test_what_is_drawn_follows_the_law(law):
    rng = np.random.default_rng(0)
    drawn = np.array([law.draw(rng) for _ in range(4000)])
    expected = 4000 * np.exp(law.log_probabilities(3))
    observed = [np.count_nonzero(drawn == k) for k in (1, 2, 3)]
    cells = [*observed, 4000 - sum(observed)], [*expected, 4000 - expected.sum()]
    assert stats.chisquare(*cells).pvalue > 1e-6


def best_of(probabilities, law):
    """Exact law of the best of K draws, outcomes in ascending order of score."""
    weights = np.exp(law.log_probabilities(60_000))
    k = np.arange(1, 60_001)
    below = np.minimum(np.cumsum(probabilities), 1.0)
    reached = np.array([float(weights @ np.exp(k * math.log(b))) for b in below])
    return np.diff(reached, prepend=0.0)


def renyi(p, q, order):
    return float(special.logsumexp(order * np.log(p) + (1 - order) * np.log(q))) / (order - 1)


def discrete_pairs():
    rng = np.random.default_rng(0)
    for _ in range(6):
        p = rng.dirichlet(np.ones(5))
        yield p, (q := p * np.exp(rng.uniform(-0.4, 0.4, 5))) / q.sum()
    # The best outcome is rare: here a search is at its dearest.
    yield np.array([1 - 1e-3, 1e-3]), np.array([1 - 2.7e-3, 2.7e-3])


def both_curves(p, q, orders):
    return np.array([max(renyi(p, q, a), renyi(q, p, a)) for a in orders])


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_no_search_costs_more_than_the_bound(law):
    orders = np.array([1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0])
    for p, q in discrete_pairs():
        bound, _ = searched(orders, both_curves(p, q, orders), law)
        truth = both_curves(best_of(p, law), best_of(q, law), orders)
        assert (truth <= bound * (1 + 1e-9)).all()


def test_a_bound_that_forgets_the_choice_is_below_the_truth():
    """The planted bug: one run's own curve, as if nothing had been searched."""
    law = TruncatedNegativeBinomial.with_mean(20.0, 0.0)
    orders = np.array([2.0, 4.0, 8.0])
    p, q = list(discrete_pairs())[-1]
    truth = both_curves(best_of(p, law), best_of(q, law), orders)
    assert (truth > 2.5 * both_curves(p, q, orders)).all()


def test_the_whole_is_converted_at_the_orders_that_are_named():
    law = TruncatedNegativeBinomial.with_mean(20.0)
    bound = best_of_random(STEP, law, 1e-5)
    base = RdpAccountant().compose(*STEP[0])
    at = base.rdp([bound.order, bound.other])
    assert at == pytest.approx([bound.at_order, bound.at_other], rel=1e-9)
    total = (
        at[0]
        + (1 + law.eta) * ((1 - 1 / bound.other) * at[1] + math.log(1 / law.gamma) / bound.other)
        + math.log(law.mean) / (bound.order - 1)
    )
    epsilon = improved(np.array([bound.order]), np.array([total]), 1e-5)[0]
    assert bound.epsilon == pytest.approx(epsilon, rel=1e-9)


def test_searching_longer_costs_more_and_less_noise_costs_more():
    means = [1.5, 5.0, 20.0, 100.0]
    costs = [
        best_of_random(STEP, TruncatedNegativeBinomial.with_mean(mean), 1e-5).epsilon
        for mean in means
    ]
    assert costs == sorted(costs)
    one = RdpAccountant().compose(*STEP[0]).epsilon(1e-5).upper
    assert one < costs[0]
    assert costs[-1] < 4 * one  # plain composition of 100 runs: far more
    assert best_of_all(STEP, 100, 1e-5, []).epsilon > 2 * costs[-1]


def test_all_of_one_run_is_that_run():
    one = RdpAccountant(ORDERS).compose(*STEP[0]).epsilon(1e-5, search=False).upper
    assert best_of_all(STEP, 1, 1e-5, []).epsilon == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TruncatedNegativeBinomial(eta=-1.0, gamma=0.5), "eta = -1.0"),
        (lambda: TruncatedNegativeBinomial(eta=0.0, gamma=1.0), "gamma = 1.0"),
        (lambda: TruncatedNegativeBinomial.with_mean(1.0), "trials = 1.0"),
        (lambda: best_of_all(STEP, 0, 1e-5, []), "trials = 0"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(InvalidValue, match=message):
        make()
