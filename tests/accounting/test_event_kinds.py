"""Events of every kind: written and read back, refused where nobody has an analysis."""

import json
import math

import pytest
from hypothesis import given
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
    event_from_json,
)

ADDED, REPLACED, LABEL = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE, Relation.LABEL_CHANGE
ACCOUNTANTS = [RdpAccountant, PldAccountant]

noises = st.floats(0, allow_nan=False)


def mechanisms(relations):
    return st.one_of(
        st.builds(Gaussian, noise_multiplier=noises, relation=relations),
        st.builds(Laplace, noise_multiplier=noises, relation=relations),
        st.builds(
            DiscreteGaussian,
            noise_multiplier=noises,
            sensitivity=st.integers(1, 1000),
            relation=relations,
        ),
        vectors(relations),
        st.builds(
            RandomizedResponse,
            noise_parameter=st.floats(0, 1),
            categories=st.integers(2, 1000),
            relation=relations,
        ),
        st.builds(ExponentialMechanism, epsilon=noises, relation=relations),
    )


def vectors(relations):
    return st.builds(
        DiscreteGaussian,
        noise_multiplier=st.floats(4, allow_nan=False),
        sensitivity=st.floats(1, 1e100),
        dimension=st.integers(2, 10**12),
        relation=relations,
    )


def gaussians(relation):
    return st.builds(Gaussian, noise_multiplier=noises, relation=st.just(relation))


rates = st.floats(0, 1)
events = st.one_of(
    mechanisms(st.sampled_from(Relation)),
    st.builds(NoCost, relation=st.sampled_from(Relation)),
    st.builds(PoissonSampled, sampling_rate=rates, event=mechanisms(st.just(ADDED))),
    st.builds(
        PoissonSampled,
        sampling_rate=rates,
        event=gaussians(ADDED),
        group_size=st.integers(1, 100),
    ),
    st.builds(
        PoissonSampled,
        sampling_rate=rates,
        event=vectors(st.just(ADDED)),
        group_size=st.integers(1, 100),
    ),
    st.builds(
        FixedSizeSampled,
        dataset_size=st.integers(100, 10**9),
        batch_size=st.integers(0, 100),
        event=st.one_of(gaussians(REPLACED), vectors(st.just(REPLACED))),
    ),
    st.builds(ShuffledEpoch, event=mechanisms(st.sampled_from([REPLACED, LABEL]))),
)


@given(events)
def test_an_event_of_any_kind_is_read_back_as_it_was_written(event):
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


def test_every_kind_is_written_by_its_name():
    replaced = Gaussian(noise_multiplier=1.0, relation=REPLACED)
    written = [
        Gaussian(noise_multiplier=1.0),
        Laplace(noise_multiplier=1.0),
        DiscreteGaussian(noise_multiplier=1.0),
        RandomizedResponse(noise_parameter=0.5),
        ExponentialMechanism(epsilon=1.0),
        NoCost(),
        PoissonSampled(sampling_rate=0.5, event=Laplace(noise_multiplier=1.0)),
        FixedSizeSampled(dataset_size=10, batch_size=5, event=replaced),
        ShuffledEpoch(event=replaced),
    ]
    assert [event.to_json()["type"] for event in written] == [
        "gaussian",
        "laplace",
        "discrete_gaussian",
        "randomized_response",
        "exponential_mechanism",
        "no_cost",
        "poisson_sampled",
        "fixed_size_sampled",
        "shuffled_epoch",
    ]


def test_a_relation_is_written_where_it_is_not_the_usual_one():
    assert Laplace(noise_multiplier=1.0, relation=LABEL).to_json() == {
        "type": "laplace",
        "noise_multiplier": 1.0,
        "relation": "label_change",
    }
    assert "relation" not in Laplace(noise_multiplier=1.0).to_json()
    assert "relation" not in RandomizedResponse(noise_parameter=0.5).to_json()


@pytest.mark.parametrize(
    "data",
    [
        {"type": "laplace", "noise_multiplier": 1.0, "relation": "neighbours_of_neighbours"},
        {"type": "exponential_mechanism"},
        {"type": "randomized_response", "noise_parameter": "a half"},
        {"type": "shuffled_epoch", "event": {"type": "laplace", "noise_multiplier": 1.0}},
        {
            "type": "shuffled_epoch",
            "event": {
                "type": "shuffled_epoch",
                "event": {"type": "randomized_response", "noise_parameter": 0.5},
            },
        },
    ],
)
def test_what_cannot_be_priced_is_not_read(data):
    with pytest.raises(UnsupportedEvent):
        event_from_json(data)


def test_a_bad_value_is_refused_on_reading_as_on_writing():
    with pytest.raises(InvalidValue, match=r"noise_multiplier = -1\.0: must be ≥ 0"):
        event_from_json({"type": "laplace", "noise_multiplier": -1.0})


NOT_ANALYSED = [
    lambda: PoissonSampled(
        sampling_rate=0.1, event=Laplace(noise_multiplier=1.0, relation=REPLACED)
    ),
    lambda: PoissonSampled(sampling_rate=0.1, event=RandomizedResponse(noise_parameter=0.5)),
    lambda: PoissonSampled(sampling_rate=0.1, event=ExponentialMechanism(epsilon=1.0)),
    lambda: PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=1.0, relation=LABEL)),
    lambda: FixedSizeSampled(dataset_size=10, batch_size=1, event=Gaussian(noise_multiplier=1.0)),
    lambda: FixedSizeSampled(
        dataset_size=10, batch_size=1, event=Gaussian(noise_multiplier=1.0, relation=LABEL)
    ),
    lambda: ShuffledEpoch(event=Gaussian(noise_multiplier=1.0)),
    lambda: ShuffledEpoch(event=Laplace(noise_multiplier=1.0)),
]


@pytest.mark.parametrize("build", NOT_ANALYSED)
def test_a_sampler_without_an_analysis_for_the_relation_is_refused(build):
    with pytest.raises(UnsupportedEvent, match=r"relation = \w+: .* is analysed for \w+ only"):
        build()


@pytest.mark.parametrize(
    "inner",
    [
        Laplace(noise_multiplier=1.0),
        DiscreteGaussian(noise_multiplier=1.0),
        RandomizedResponse(noise_parameter=0.5, relation=ADDED),
    ],
)
def test_a_sampled_group_without_an_analysis_is_refused(inner):
    with pytest.raises(UnsupportedEvent, match=r"group_size = 2: .* Gaussian noise only"):
        PoissonSampled(sampling_rate=0.1, event=inner, group_size=2)


@pytest.mark.parametrize("make", ACCOUNTANTS)
@pytest.mark.parametrize("first", Relation)
@pytest.mark.parametrize("second", Relation)
def test_relations_do_not_mix_in_one_composition(make, first, second):
    accountant = make().compose(Gaussian(noise_multiplier=1.0, relation=first), 3)
    other = Laplace(noise_multiplier=1.0, relation=second)
    assert accountant.relation is first
    if first is second:
        accountant.compose(other)
        return
    with pytest.raises(UnsupportedEvent, match=f"^relation = {second.value}: .* {first.value}"):
        accountant.compose(other)
    assert accountant.events == [(Gaussian(noise_multiplier=1.0, relation=first), 3)]


@pytest.mark.parametrize("make", ACCOUNTANTS)
def test_a_relation_declared_beforehand_holds_from_the_first_release(make):
    accountant = make(relation=REPLACED)
    with pytest.raises(UnsupportedEvent, match=r"^relation = add_or_remove_one"):
        accountant.compose(Gaussian(noise_multiplier=1.0))
    assert accountant.compose(RandomizedResponse(noise_parameter=0.5)).relation is REPLACED


REPLACED_NOISE = Gaussian(noise_multiplier=1.0, relation=REPLACED)
BAD_VALUES = [
    (lambda v: Laplace(noise_multiplier=v), "noise_multiplier", [-1.0, math.nan]),
    (lambda v: DiscreteGaussian(noise_multiplier=v), "noise_multiplier", [-1.0, math.nan]),
    (
        lambda v: DiscreteGaussian(noise_multiplier=1.0, sensitivity=v),
        "sensitivity",
        [0, -1, 1.5, math.nan],
    ),
    (
        lambda v: DiscreteGaussian(noise_multiplier=9.0, sensitivity=v, dimension=2),
        "sensitivity",
        [0.5, math.nan, math.inf],
    ),
    (
        lambda v: DiscreteGaussian(noise_multiplier=9.0, dimension=v),
        "dimension",
        [0, 1.5, math.nan],
    ),
    (
        lambda v: DiscreteGaussian(noise_multiplier=v, dimension=2),
        "noise_multiplier × sensitivity",
        [0.0, 3.9],
    ),
    (
        lambda v: RandomizedResponse(noise_parameter=v),
        "noise_parameter",
        [-0.1, 1.1, math.nan, math.inf],
    ),
    (
        lambda v: RandomizedResponse(noise_parameter=0.5, categories=v),
        "categories",
        [1, 0, 2.5, math.nan],
    ),
    (lambda v: ExponentialMechanism(epsilon=v), "epsilon", [-1.0, math.nan]),
    (
        lambda v: PoissonSampled(
            sampling_rate=0.1, event=Gaussian(noise_multiplier=1.0), group_size=v
        ),
        "group_size",
        [0, -1, 1.5, math.nan],
    ),
    (
        lambda v: FixedSizeSampled(dataset_size=v, batch_size=0, event=REPLACED_NOISE),
        "dataset_size",
        [0, -1, 1.5, math.nan],
    ),
    (
        lambda v: FixedSizeSampled(dataset_size=10, batch_size=v, event=REPLACED_NOISE),
        "batch_size",
        [-1, 11, 1.5, math.nan],
    ),
]


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(build, name, value) for build, name, values in BAD_VALUES for value in values],
)
def test_a_value_outside_its_domain_is_refused_by_name(build, name, value):
    with pytest.raises(InvalidValue, match=f"^{name} = {value}: must"):
        build(value)
