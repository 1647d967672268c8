"""What an event may be, how it is written down, and what a DP-SGD step is charged as."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accountant import (
    Gaussian,
    InvalidValue,
    PoissonSampled,
    UnsupportedEvent,
    dpsgd_event,
    dpsgd_steps,
    event_from_json,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "dpsgd_epsilon.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]

gaussians = st.builds(Gaussian, noise_multiplier=st.floats(0, allow_nan=False))
events = gaussians | st.builds(PoissonSampled, sampling_rate=st.floats(0, 1), event=gaussians)


@given(events)
def test_an_event_is_read_back_as_it_was_written(event):
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "laplace", "scale": 1.0},
        {"type": "gaussian"},
        {"type": "poisson_sampled", "sampling_rate": 0.1},
        {
            "type": "poisson_sampled",
            "sampling_rate": 0.1,
            "event": PoissonSampled(
                sampling_rate=0.1, event=Gaussian(noise_multiplier=1.0)
            ).to_json(),
        },
    ],
)
def test_an_event_without_an_analysis_is_refused(data):
    with pytest.raises(UnsupportedEvent, match="not one this version can price"):
        event_from_json(data)


@pytest.mark.parametrize("noise", [-1.0, math.nan])
def test_negative_noise_is_refused(noise):
    with pytest.raises(InvalidValue, match=f"noise_multiplier = {noise}: must be ≥ 0"):
        Gaussian(noise_multiplier=noise)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_sampling_rate_outside_its_domain_is_refused(rate):
    with pytest.raises(InvalidValue, match=f"sampling_rate = {rate}: must lie in"):
        PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=1.0))


def test_a_microbatch_of_several_is_charged_at_half_the_noise():
    for size, charged in ((1, 1.2), (2, 0.6), (5, 0.6), (50, 0.6)):
        event = dpsgd_event(
            dataset_size=60_000, batch_size=50, noise_multiplier=1.2, microbatch_size=size
        )
        assert event.sampling_rate == 50 / 60_000
        assert event.event.noise_multiplier == charged


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"dataset_size": 0}, "n = 0"),
        ({"dataset_size": -5}, "n = -5"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": 1001}, "batch_size = 1001"),
        ({"microbatch_size": 0}, "microbatch_size = 0"),
        ({"microbatch_size": 7}, "microbatch_size = 7"),
        ({"microbatch_size": 200}, "microbatch_size = 200"),
        ({"noise_multiplier": -1.0}, "noise_multiplier = -1.0"),
    ],
)
def test_a_step_that_cannot_be_is_refused(changed, name):
    sound = {"dataset_size": 1000, "batch_size": 100, "noise_multiplier": 1.0}
    assert dpsgd_event(**sound).sampling_rate == 0.1
    with pytest.raises(InvalidValue, match=f"^{name}: must"):
        dpsgd_event(**(sound | changed))


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_epochs_become_the_known_number_of_steps(row):
    steps = dpsgd_steps(dataset_size=row["n"], batch_size=row["batch"], epochs=row["epochs"])
    assert steps == row["steps"]


@pytest.mark.parametrize("epochs", [-1.0, math.nan, math.inf])
def test_epochs_outside_their_domain_are_refused(epochs):
    with pytest.raises(InvalidValue, match=f"epochs = {epochs}: must be a number ≥ 0"):
        dpsgd_steps(dataset_size=1000, batch_size=10, epochs=epochs)
