"""Adding up releases: the order does not matter, nothing is lost, and the search only helps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import Gaussian, InvalidValue, PoissonSampled, RdpAccountant, renyi_divergence
from accountant.rdp.conversion import CONVERSIONS


def step(rate=0.01, noise=1.0):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


PARTS = [(step(), 300), (step(noise=2.0), 50), (Gaussian(noise_multiplier=9.0), 2), (step(), 7)]


def composed(parts):
    accountant = RdpAccountant()
    accountant.compose_all(parts)
    return accountant


def test_the_order_of_composition_does_not_matter():
    curves = [composed(parts).rdp() for parts in itertools.permutations(PARTS)]
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-14)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
@settings(max_examples=40)
def test_splitting_a_count_changes_nothing(counts):
    in_parts = composed([(step(), count) for count in counts])
    at_once = composed([(step(), sum(counts))])
    assert in_parts.rdp().tolist() == at_once.rdp().tolist()
    assert in_parts.epsilon(1e-5) == at_once.epsilon(1e-5)
    assert in_parts.events == at_once.events


def test_the_cost_of_unequal_steps_is_the_sum_of_their_costs():
    accountant = composed(PARTS)
    by_hand = sum(n * renyi_divergence(event, accountant.orders) for event, n in PARTS)
    assert accountant.rdp() == pytest.approx(by_hand, rel=1e-14)
    assert accountant.rdp(accountant.orders) == pytest.approx(by_hand, rel=1e-14)


def test_events_are_listed_once_each_with_their_counts():
    assert composed(PARTS).events == [(step(), 307), *PARTS[1:3]]


@given(st.integers(1, 3000), st.floats(0.3, 10.0), st.floats(1e-4, 1.0))
@settings(max_examples=60)
def test_one_more_step_never_costs_less(count, noise, rate):
    accountant = composed([(step(rate, noise), count)])
    before = accountant.epsilon(1e-5).upper
    assert accountant.compose(step(rate, noise)).epsilon(1e-5).upper >= before * (1 - 1e-7)


def test_a_copy_and_its_original_go_separate_ways():
    original = composed(PARTS)
    before = original.epsilon(1e-5)
    copy = original.copy()
    assert (copy.epsilon(1e-5), copy.events) == (before, original.events)
    copy.compose(step(), 1000)
    assert (original.epsilon(1e-5), original.events) == (before, composed(PARTS).events)
    longer = copy.epsilon(1e-5)
    original.compose(step(noise=0.5), 10)
    assert copy.epsilon(1e-5) == longer


@pytest.mark.parametrize("parts", [[], [(step(), 0)]])
@pytest.mark.parametrize("method", CONVERSIONS)
def test_nothing_composed_costs_nothing(parts, method):
    accountant = composed(parts)
    assert accountant.epsilon(1e-12, method).upper == 0
    assert accountant.rdp().tolist() == accountant.rdp([2.0] * accountant.orders.size).tolist()
    assert accountant.events == []


@pytest.mark.parametrize("noiseless", [step(noise=0.0), Gaussian(noise_multiplier=0.0)])
@pytest.mark.parametrize("method", CONVERSIONS)
def test_one_step_without_noise_costs_everything(noiseless, method):
    bound = composed([(step(), 10), (noiseless, 1)]).epsilon(1e-5, method)
    assert bound.upper == math.inf
    assert math.isnan(bound.order)
    assert not bound.beyond_grid


@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
def test_improved_never_costs_more_than_classic(delta):
    for parts in (PARTS, PARTS[:1], [(step(1e-4, 20.0), 5)], [(step(0.004, 0.1), 480)]):
        accountant = composed(parts)
        assert accountant.epsilon(delta).upper <= accountant.epsilon(delta, "rdp-classic").upper


EDGES = [  # parts, δ, the edge's ε, a figure the search gets below
    ([(step(1e-4, 20.0), 10)], 1e-5, 0.1028673, 0.0003),
    ([(step(1e-4, 10.0), 10_000)], 1e-5, 0.1028989, 0.0026),
    ([(step(250 / 60_000, 0.1), 480)], 1e-5, 2321.9371923, 549.0),
]


@pytest.mark.parametrize(("parts", "delta", "at_the_edge", "found"), EDGES)
def test_the_search_beyond_either_end_of_the_grid_pays(parts, delta, at_the_edge, found):
    accountant = composed(parts)
    edge = accountant.epsilon(delta, search=False)
    bound = accountant.epsilon(delta)
    assert edge.upper == pytest.approx(at_the_edge, abs=5.01e-8)
    assert edge.order in (1.1, 63.0)
    assert not edge.beyond_grid
    assert bound.upper < found
    assert bound.beyond_grid
    assert not 1.1 <= bound.order <= 63


@pytest.mark.parametrize("method", CONVERSIONS)
@pytest.mark.parametrize("parts", [case[0] for case in EDGES])
def test_what_the_search_finds_is_valid_at_the_order_it_names(parts, method):
    accountant = composed(parts)
    bound = accountant.epsilon(1e-5, method)
    order = np.array([bound.order])
    there = CONVERSIONS[method](order, accountant.rdp(order), 1e-5)
    assert bound.upper == pytest.approx(float(there[0]), rel=1e-9)


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("rate", [1e-5, 1e-2, 1.0])
def test_the_search_never_makes_it_worse(rate, noise):
    accountant = composed([(step(rate, noise), 20)])
    for method in CONVERSIONS:
        edge = accountant.epsilon(1e-6, method, search=False).upper
        assert accountant.epsilon(1e-6, method).upper <= edge


def test_a_cost_too_small_for_a_double_does_not_hide_a_real_one():
    accountant = composed([(step(0.5, 1e200), 1), (step(0.01, 1.0), 100)])
    assert accountant.epsilon(1e-5).upper >= composed([(step(0.01, 1.0), 100)]).epsilon(1e-5).upper


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan, math.inf])
def test_a_delta_outside_its_domain_is_refused(delta):
    for accountant in (composed([]), composed(PARTS)):
        with pytest.raises(InvalidValue, match=f"delta = {delta}: must lie strictly between"):
            accountant.epsilon(delta)


def test_an_unknown_method_is_refused():
    with pytest.raises(InvalidValue, match="method = gdp: must be one of rdp, rdp-classic"):
        composed(PARTS).epsilon(1e-5, "gdp")


@pytest.mark.parametrize("count", [-1, 1.5, math.nan, math.inf])
def test_a_count_that_is_not_a_whole_number_is_refused(count):
    accountant = composed(PARTS)
    before = accountant.epsilon(1e-5)
    with pytest.raises(InvalidValue, match=f"count = {count}: must be a whole number ≥ 0"):
        accountant.compose(step(), count)
    assert accountant.epsilon(1e-5) == before


@pytest.mark.parametrize("orders", [[], [1.0, 2.0], [math.nan], math.inf])
def test_orders_outside_their_domain_are_refused(orders):
    with pytest.raises(InvalidValue, match="orders"):
        RdpAccountant(orders)
