"""What must hold of every mechanism's Rényi curve, wherever it is asked."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import (
    DiscreteGaussian,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomizedResponse,
    Relation,
    ShuffledEpoch,
    renyi_divergence,
)

CLOSE = 1 + 1e-12
ADDED = Relation.ADD_OR_REMOVE_ONE

orders = st.one_of(st.floats(1.01, 40.0), st.floats(-4, 2).map(lambda e: 1 + 10.0**e))
rates = st.one_of(st.floats(0, 1), st.floats(-9, 0).map(lambda e: 10.0**e))
noises = st.floats(0.2, 30.0)
everywhere = settings(max_examples=40)


def more_noise(event, factor):
    """The same mechanism, its noise or its fair answers ``factor`` ≥ 1 times as much."""
    match event:
        case RandomizedResponse(noise_parameter=p):
            return dataclasses.replace(event, noise_parameter=min(p * factor, 1.0))
        case ExponentialMechanism(epsilon=epsilon):
            return dataclasses.replace(event, epsilon=epsilon / factor)
    return dataclasses.replace(event, noise_multiplier=event.noise_multiplier * factor)


noisy = st.one_of(
    st.builds(Gaussian, noise_multiplier=noises),
    st.builds(Laplace, noise_multiplier=noises),
    st.builds(DiscreteGaussian, noise_multiplier=noises, sensitivity=st.integers(1, 3)),
    st.builds(
        RandomizedResponse,
        noise_parameter=st.floats(1e-6, 1),
        categories=st.integers(2, 9),
        relation=st.just(ADDED),
    ),
    st.builds(ExponentialMechanism, epsilon=st.floats(1e-6, 20), relation=st.just(ADDED)),
)


def cost(event, order):
    return float(renyi_divergence(event, order))


def sampled(rate, event, size=1):
    return PoissonSampled(sampling_rate=rate, event=event, group_size=size)


@everywhere
@given(noisy, st.none() | rates, orders, st.floats(1, 3))
def test_more_noise_and_lower_orders_never_cost_more(inner, rate, order, factor):
    def event(mechanism):
        return mechanism if rate is None else sampled(rate, mechanism)

    before = cost(event(inner), order)
    assert np.isfinite(before)
    assert before >= 0
    assert cost(event(more_noise(inner, factor)), order) <= before * CLOSE
    assert cost(event(inner), 1 + (order - 1) / factor) <= before * CLOSE


@everywhere
@given(noisy, rates, orders, st.floats(1, 3))
def test_sampling_never_costs_more_than_taking_everybody(inner, rate, order, factor):
    unsampled = cost(inner, order)
    assert cost(sampled(rate, inner), order) <= unsampled * CLOSE
    assert cost(sampled(rate / factor, inner), order) <= cost(sampled(rate, inner), order) * CLOSE
    assert cost(sampled(1.0, inner), order) == pytest.approx(unsampled, rel=1e-12)


@everywhere
@given(st.floats(0.5, 30), rates, st.integers(1, 12), st.integers(1, 4), orders)
def test_a_larger_group_never_costs_less(noise, rate, size, more, order):
    inner = Gaussian(noise_multiplier=noise)
    small, large = (cost(sampled(rate, inner, k), order) for k in (size, size + more))
    assert small <= large * CLOSE
    assert large <= cost(Gaussian(noise_multiplier=noise / (size + more)), order) * CLOSE


@everywhere
@given(noises, rates, orders)
def test_a_group_of_one_costs_what_one_record_does(noise, rate, order):
    inner = Gaussian(noise_multiplier=noise)
    assert sampled(rate, inner, 1) == sampled(rate, inner)
    alone, whole = cost(sampled(rate, inner), order), cost(sampled(1.0, inner, 2), order)
    assert alone <= whole * CLOSE
    assert whole == pytest.approx(cost(Gaussian(noise_multiplier=noise / 2), order), rel=1e-12)


NOTHING_HIDDEN = [
    Gaussian(noise_multiplier=0.0),
    Laplace(noise_multiplier=0.0),
    DiscreteGaussian(noise_multiplier=0.0, sensitivity=2),
    RandomizedResponse(noise_parameter=0.0, categories=5),
    ExponentialMechanism(epsilon=np.inf),
    sampled(1e-9, Gaussian(noise_multiplier=0.0)),
    sampled(1e-9, Gaussian(noise_multiplier=0.0), 3),
    sampled(1e-9, Laplace(noise_multiplier=0.0)),
    sampled(1e-9, DiscreteGaussian(noise_multiplier=0.0)),
    FixedSizeSampled(
        dataset_size=1000,
        batch_size=1,
        event=Gaussian(noise_multiplier=0.0, relation=Relation.REPLACE_ONE),
    ),
    ShuffledEpoch(event=RandomizedResponse(noise_parameter=0.0)),
]


@pytest.mark.parametrize("event", NOTHING_HIDDEN, ids=repr)
def test_a_release_without_noise_costs_infinitely_much(event):
    assert np.isposinf(renyi_divergence(event, [1.01, 2.0, 64.0])).all()


NOTHING_SAID = [
    Gaussian(noise_multiplier=np.inf),
    Laplace(noise_multiplier=np.inf),
    DiscreteGaussian(noise_multiplier=np.inf),
    RandomizedResponse(noise_parameter=1.0, categories=5),
    ExponentialMechanism(epsilon=0.0),
    sampled(0.0, Gaussian(noise_multiplier=0.0)),
    sampled(0.0, Gaussian(noise_multiplier=0.0), 3),
    sampled(0.0, Laplace(noise_multiplier=0.0)),
    sampled(0.0, DiscreteGaussian(noise_multiplier=1.0)),
    sampled(0.5, Laplace(noise_multiplier=np.inf)),
    FixedSizeSampled(
        dataset_size=1000,
        batch_size=0,
        event=Gaussian(noise_multiplier=1.0, relation=Relation.REPLACE_ONE),
    ),
    ShuffledEpoch(event=RandomizedResponse(noise_parameter=1.0)),
]


@pytest.mark.parametrize("event", NOTHING_SAID, ids=repr)
def test_a_release_that_says_nothing_costs_nothing(event):
    assert renyi_divergence(event, [1.01, 2.0, 64.0]).tolist() == [0.0] * 3


HARDLY_ANY_NOISE = [
    Laplace(noise_multiplier=1e-300),
    DiscreteGaussian(noise_multiplier=1e-200),
    RandomizedResponse(noise_parameter=1e-300),
    ExponentialMechanism(epsilon=1e300),
    sampled(0.001, Laplace(noise_multiplier=0.001)),
    sampled(0.001, DiscreteGaussian(noise_multiplier=0.01)),
    sampled(0.01, Gaussian(noise_multiplier=0.01), 3),
    sampled(0.01, Gaussian(noise_multiplier=1.0), 200),
    sampled(0.99, Gaussian(noise_multiplier=4.0), 10),
]


@pytest.mark.parametrize("event", HARDLY_ANY_NOISE, ids=repr)
def test_hardly_any_noise_is_priced_in_little_time_without_a_warning(event):
    curve = renyi_divergence(event, [1.01, 2.0, 64.0])
    assert np.all(curve[1:] >= curve[:-1] / CLOSE)
    assert np.all(curve > 1)


HARDLY_ANY_LOSS = [
    (ExponentialMechanism(epsilon=1e-10), 1.25e-21),
    (ExponentialMechanism(epsilon=1e-300), 0.0),
    (sampled(1e-12, Laplace(noise_multiplier=1.0)), 4.28649823e-25),
    (sampled(1e-9, Gaussian(noise_multiplier=1.0), 3), 7.7322742e-18),
    (sampled(1e-300, Gaussian(noise_multiplier=1.0), 3), 0.0),
    (DiscreteGaussian(noise_multiplier=1e6), 5e-13),
]


@pytest.mark.parametrize(("event", "per_order"), HARDLY_ANY_LOSS)
def test_a_loss_near_to_zero_costs_its_leading_term(event, per_order):
    """α/2 times the variance of the likelihood ratio, q² E[(P/Q − 1)²] for a sampled record."""
    orders = np.array([1.0001, 1.01, 2.0])
    assert renyi_divergence(event, orders) == pytest.approx(per_order * orders, rel=1e-4, abs=0)
