"""What every accountant promises, whichever way it adds up."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import (
    DiscreteGaussian,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    InvalidValue,
    Laplace,
    NoCost,
    PldAccountant,
    PoissonSampled,
    RandomizedResponse,
    RdpAccountant,
    Relation,
    ShuffledEpoch,
    UnsupportedEvent,
    for_group,
    gdp_mu,
    renyi_divergence,
)


def classic_renyi():
    return RdpAccountant(method="rdp-classic")


def narrow_exact():
    return PldAccountant(width=1e-6)


ACCOUNTANTS = [RdpAccountant, classic_renyi, PldAccountant, narrow_exact]
ADDED, REPLACED = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


def step(rate=0.01, noise=1.0):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


def composed(make, parts):
    accountant = make()
    accountant.compose_all(parts)
    return accountant


PARTS = [(step(), 300), (step(noise=2.0), 50), (Gaussian(noise_multiplier=9.0), 2), (step(), 7)]

every = pytest.mark.parametrize("make", ACCOUNTANTS)
at_usual_widths = pytest.mark.parametrize("make", ACCOUNTANTS[:3])


@every
@pytest.mark.parametrize("parts", [[], [(step(), 0)]])
@pytest.mark.parametrize("delta", [1e-300, 0.999])
def test_nothing_composed_costs_nothing(make, parts, delta):
    accountant = composed(make, parts)
    bounds = accountant.epsilon(delta)
    assert (bounds.lower, bounds.upper) == (0.0, 0.0)
    assert accountant.events == []
    assert accountant.relation is None


NOISELESS = [
    Gaussian(noise_multiplier=0.0),
    Laplace(noise_multiplier=0.0),
    DiscreteGaussian(noise_multiplier=0.0),
    RandomizedResponse(noise_parameter=0.0, relation=ADDED),
    ExponentialMechanism(epsilon=math.inf, relation=ADDED),
    step(noise=0.0),
    PoissonSampled(sampling_rate=0.1, event=Laplace(noise_multiplier=0.0)),
]


@every
@pytest.mark.parametrize("event", NOISELESS)
def test_no_noise_costs_everything_and_is_no_exception(make, event):
    assert make().compose(event).epsilon(1e-5).upper == math.inf
    assert composed(make, [(step(), 10), (event, 1)]).epsilon(1e-5).upper == math.inf


SILENT = [
    NoCost(),
    Gaussian(noise_multiplier=math.inf),
    Laplace(noise_multiplier=math.inf),
    RandomizedResponse(noise_parameter=1.0, relation=ADDED),
    ExponentialMechanism(epsilon=0.0, relation=ADDED),
    step(rate=0.0),
    step(rate=0.0, noise=0.0),
    step(noise=math.inf),
]


@every
@pytest.mark.parametrize("event", SILENT)
def test_a_release_that_says_nothing_costs_nothing(make, event):
    """Rényi accounting cannot say 0: its orders end somewhere."""
    nothing = make().compose(event, 100).epsilon(1e-9)
    assert nothing.lower == 0
    assert nothing.upper <= (2e-4 if isinstance(make(), RdpAccountant) else 0)
    alone = composed(make, [(step(), 10)]).epsilon(1e-5)
    beside = composed(make, [(step(), 10), (event, 100)]).epsilon(1e-5)
    assert beside.upper == pytest.approx(alone.upper, rel=1e-12)


@every
def test_a_no_op_cannot_move_an_epsilon_by_its_last_digit(make):
    paid = composed(make, [(step(), 10)]).epsilon(1e-5)
    for parts in ([(NoCost(), 500), (step(), 10)], [(step(), 10), (NoCost(), 500)]):
        assert composed(make, parts).epsilon(1e-5) == paid


def test_a_no_op_is_stated_for_one_relation_like_everything_else():
    with pytest.raises(UnsupportedEvent, match="relations do not add up"):
        composed(PldAccountant, [(step(), 1), (NoCost(relation=REPLACED), 1)])


def test_a_no_op_costs_a_group_and_the_central_limit_nothing_either():
    assert for_group(NoCost(), 3) == [(NoCost(), 1)]
    assert gdp_mu([(step(), 10), (NoCost(), 500)]) == gdp_mu([(step(), 10)])
    assert renyi_divergence(NoCost(), [2.0, 1e4]).tolist() == [0.0, 0.0]


@every
def test_compose_returns_the_accountant_itself(make):
    accountant = make()
    assert accountant.compose(step()) is accountant
    assert accountant.compose(step(), 0) is accountant


@every
def test_one_release_is_composed_unless_told_otherwise(make):
    assert make().compose(step()).events == [(step(), 1)]


@every
def test_a_copy_and_its_original_go_separate_ways(make):
    original = composed(make, PARTS)
    before = original.epsilon(1e-5)
    copy = original.copy()
    assert (copy.epsilon(1e-5), copy.events) == (before, original.events)
    copy.compose(step(), 1000)
    assert (original.epsilon(1e-5), original.events) == (before, composed(make, PARTS).events)
    longer = copy.epsilon(1e-5)
    assert longer.upper > before.upper
    original.compose(step(noise=0.5), 10)
    assert copy.epsilon(1e-5) == longer


@every
def test_events_are_listed_once_each_with_their_counts(make):
    assert composed(make, PARTS).events == [(step(), 307), *PARTS[1:3]]


@every
def test_the_list_of_events_is_the_callers_to_change(make):
    accountant = composed(make, PARTS)
    accountant.events.clear()
    assert len(accountant.events) == 3


@every
def test_asking_changes_nothing(make):
    accountant = composed(make, PARTS)
    first = accountant.epsilon(1e-5)
    accountant.epsilon(1e-9)
    assert accountant.epsilon(1e-5) == first
    assert accountant.events == composed(make, PARTS).events


@every
def test_whole_numbers_of_any_type_are_counts(make):
    expected = make().compose(step(), 30).epsilon(1e-5)
    for count in (30.0, np.int64(30), np.float64(30), np.int32(30)):
        assert make().compose(step(), count).epsilon(1e-5) == expected


@every
@pytest.mark.parametrize("count", [-1, 1.5, math.nan, math.inf, -math.inf, 2**53 + 2])
def test_a_count_that_is_not_a_whole_number_is_refused(make, count):
    accountant = composed(make, PARTS)
    before = accountant.epsilon(1e-5)
    with pytest.raises(InvalidValue, match=r"^count"):
        accountant.compose(step(), count)
    assert (accountant.epsilon(1e-5), accountant.events) == (
        before,
        composed(make, PARTS).events,
    )


@every
@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan, math.inf])
@pytest.mark.parametrize("parts", [[], PARTS, [(step(noise=0.0), 1)]])
def test_a_delta_outside_its_domain_is_refused(make, delta, parts):
    with pytest.raises(InvalidValue, match=f"^delta = {delta}: must lie strictly between"):
        composed(make, parts).epsilon(delta)


@every
def test_relations_do_not_mix(make):
    accountant = make().compose(Gaussian(noise_multiplier=1.0, relation=REPLACED))
    assert accountant.relation is REPLACED
    with pytest.raises(UnsupportedEvent, match=r"^relation = add_or_remove_one"):
        accountant.compose(step())
    assert accountant.events == [(Gaussian(noise_multiplier=1.0, relation=REPLACED), 1)]
    assert accountant.copy().relation is REPLACED


RELEASES = [
    Gaussian(noise_multiplier=3.0),
    Laplace(noise_multiplier=3.0),
    DiscreteGaussian(noise_multiplier=3.0, sensitivity=2),
    RandomizedResponse(noise_parameter=0.6, categories=3),
    ExponentialMechanism(epsilon=0.3),
    step(),
    PoissonSampled(sampling_rate=0.1, event=Laplace(noise_multiplier=1.0)),
    PoissonSampled(sampling_rate=0.1, event=DiscreteGaussian(noise_multiplier=1.0)),
    PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=2.0), group_size=4),
    PoissonSampled(
        sampling_rate=0.01, event=Gaussian(noise_multiplier=2.0, relation=Relation.REPLACE_ONE)
    ),
    FixedSizeSampled(
        dataset_size=100, batch_size=2, event=Gaussian(noise_multiplier=2.0, relation=REPLACED)
    ),
    ShuffledEpoch(event=Gaussian(noise_multiplier=3.0, relation=REPLACED)),
]


@at_usual_widths
@pytest.mark.parametrize("event", RELEASES)
def test_more_releases_are_never_cheaper(make, event):
    costs = [make().compose(event, count).epsilon(1e-5) for count in (10, 30, 100)]
    assert all(0 <= cost.lower <= cost.upper < math.inf for cost in costs)
    for fewer, more in itertools.pairwise(costs):
        assert fewer.lower <= more.upper
    assert costs[0].upper < costs[-1].upper


@at_usual_widths
@pytest.mark.parametrize("event", RELEASES)
def test_a_smaller_delta_is_never_cheaper(make, event):
    costs = [make().compose(event, 20).epsilon(delta) for delta in (1e-2, 1e-5, 1e-10)]
    for laxer, stricter in itertools.pairwise(costs):
        assert laxer.lower <= stricter.upper
    assert costs[0].upper < costs[-1].upper


@pytest.mark.parametrize("event", RELEASES)
def test_no_accountant_contradicts_another(event):
    for count in (10, 30):
        all_bounds = [make().compose(event, count).epsilon(1e-5) for make in ACCOUNTANTS[:3]]
        assert max(b.lower for b in all_bounds) <= min(b.upper for b in all_bounds)


@every
def test_the_order_of_composition_does_not_matter(make):
    forwards = composed(make, PARTS).epsilon(1e-5)
    backwards = composed(make, PARTS[::-1]).epsilon(1e-5)
    assert backwards.upper == pytest.approx(forwards.upper, rel=1e-9)
    assert backwards.lower == pytest.approx(forwards.lower, rel=1e-9)


@every
def test_everybody_sampled_is_nobody_sampled_at_random(make):
    sampled = make().compose(step(rate=1.0, noise=3.0), 10).epsilon(1e-5)
    plain = make().compose(Gaussian(noise_multiplier=3.0), 10).epsilon(1e-5)
    assert sampled.upper == pytest.approx(plain.upper, rel=1e-9)


@every
def test_a_group_of_one_is_one_record(make):
    inner = Gaussian(noise_multiplier=1.0)
    group = PoissonSampled(sampling_rate=0.01, event=inner, group_size=1)
    assert make().compose(group, 100).epsilon(1e-5) == make().compose(step(), 100).epsilon(1e-5)


@every
@settings(max_examples=15)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_splitting_a_count_changes_nothing(make, counts):
    in_parts = composed(make, [(step(), count) for count in counts])
    at_once = composed(make, [(step(), sum(counts))])
    assert in_parts.epsilon(1e-5) == at_once.epsilon(1e-5)
    assert in_parts.events == at_once.events


@every
def test_answers_are_plain_numbers_with_a_lower_and_an_upper_end(make):
    bounds = composed(make, PARTS).epsilon(1e-5)
    assert type(bounds.lower) is float
    assert type(bounds.upper) is float
