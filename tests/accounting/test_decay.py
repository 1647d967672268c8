"""The bound on how fast a transform falls: above the transform everywhere, and not by too much."""

import math

import numpy as np
import pytest

from accountant import DiscreteGaussian, Gaussian, PldAccountant, PoissonSampled
from accountant.dominating_pairs.mixture import Mixture
from accountant.dominating_pairs.of_events import domination
from accountant.dominating_pairs.pairs import Cells
from accountant.pld import decay
from accountant.pld.contour import Inversion
from accountant.pld.decay import Decay, log_in_parts, log_turning
from accountant.pld.sums import Sum

PAIRS = {
    "sampled": Mixture((math.log(0.99), math.log(0.01)), 0.5),
    "sampled, exchanged": Mixture((math.log(0.99), math.log(0.01)), 0.5, exchanged=True),
    "hardly sampled": Mixture((math.log1p(-1e-5), math.log(1e-5)), 1.0),
    "little noise": Mixture((math.log(0.9), math.log(0.1)), 5.0),
    "a group of three": Mixture(tuple(np.log([0.729, 0.243, 0.027, 0.001])), 0.7),
    "discrete": domination(
        PoissonSampled(sampling_rate=0.1, event=DiscreteGaussian(noise_multiplier=3.0))
    ).upper[0],
}
TILTS = [0.7, 8.0]


def modulus(pair, tilt, frequencies):
    """|φ| by a sum of its own for Gaussian noise, over the very atoms where there are such."""
    if isinstance(pair, Mixture):
        z = np.arange(-45.0, 60 + 3 * (1 + tilt) * pair.spacing, 2e-3)
        log_q, loss = pair.curve(z)
    else:
        log_q, loss = pair.atoms(tilt)
    weight = log_q + (1 + tilt) * loss
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    return np.array([abs(np.exp(1j * u * loss) @ weight) for u in frequencies])


def frequencies_of(pair, tilt):
    scale = 1 / np.sqrt(Sum([(pair, 1)]).cumulants(tilt)[2])
    return scale * np.geomspace(1e-3, 1e3, 60)


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("name", PAIRS)
def test_the_bound_lies_above_the_transform(name, tilt):
    pair = PAIRS[name]
    u = frequencies_of(pair, tilt)
    bound = np.exp(log_turning(pair.cells(tilt), u))
    for part in (1.0, 1.2, math.sqrt(2)):  # it holds up to the next level
        assert (modulus(pair, tilt, part * u) <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("name", [name for name in PAIRS if name != "discrete"])
def test_the_bound_by_parts_lies_above_the_transform(name, tilt):
    pair = PAIRS[name]
    u = frequencies_of(pair, tilt)
    variation = pair.variation(tilt)
    bound = np.exp(np.minimum(log_in_parts(variation, u), variation.log_v[0] - np.log(u)))
    assert (modulus(pair, tilt, u) <= bound * (1 + 1e-12)).all()
    assert (bound[-10:] < 0.9).all()


@pytest.mark.parametrize("name", PAIRS)
def test_the_bound_takes_a_tenth_of_what_there_is_to_take_until_losses_turn_round(name):
    pair = PAIRS[name]
    u = frequencies_of(pair, 1.0)[:26]  # to four tenths of one over the standard deviation
    taken = -log_turning(pair.cells(1.0), u)
    assert (taken > -np.log(modulus(pair, 1.0, u)) / 10).all()


@pytest.mark.parametrize("name", PAIRS)
def test_cells_hold_less_than_everything_but_most_of_it(name):
    cells = PAIRS[name].cells(2.0)
    assert 0.8 < cells.mass.sum() < 1
    assert (cells.low <= cells.high).all()
    assert (np.diff(cells.low) >= 0).all()


def test_the_bound_of_a_sum_falls_and_its_tail_is_above_the_integral():
    total = Sum([(PAIRS["sampled"], 400), (PAIRS["sampled, exchanged"], 30)], 1e-3)
    bound = Decay(total, 2.0, 1e-4, start=1.0)
    u = np.geomspace(0.5, 1e4, 1000)
    values = np.array([bound(x) for x in u])
    assert (np.diff(values) <= 0).all()
    true = np.zeros(u.size)
    for pair, count in total.parts:
        true += count * np.log(modulus(pair, 2.0, u))
    true -= (1e-3 + 1e-4) * u**2 / 2
    assert (true <= values + 1e-9).all()
    for start in range(0, 500, 25):
        area = np.logaddexp.reduce(true[start + 1 :] + np.log(np.diff(u[start:])))
        assert area <= bound.log_tail(u[start])


def test_ten_million_steps_take_a_few_thousand_nodes(monkeypatch):
    counts = []
    built = Inversion.__init__

    def counted(self, total, contour):
        built(self, total, contour)
        counts.append(self.count)

    monkeypatch.setattr(Inversion, "__init__", counted)
    step = PoissonSampled(sampling_rate=1e-6, event=Gaussian(noise_multiplier=1.0))
    PldAccountant(width=5e-7).compose(step, 10**7).epsilon(1e-6)
    assert sum(counts) < 30_000  # a million, when the total variation alone was to bound it


def test_losses_said_to_lie_further_apart_than_they_do_would_be_noticed():
    pair = PAIRS["sampled"]
    u = frequencies_of(pair, 1.0)
    cells = pair.cells(1.0)
    planted = Cells(cells.mass, 3 * cells.low, 3 * cells.high)
    assert (modulus(pair, 1.0, u) > np.exp(log_turning(planted, u))).any()


def test_a_window_four_times_as_wide_as_allowed_would_be_noticed(monkeypatch):
    monkeypatch.setattr(decay, "_RATIO", decay._RATIO / 4)
    coin = Cells(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    u = np.linspace(0.1, 10, 200)
    true = np.abs(np.cos(u * math.sqrt(2) / 2))  # of φ at the next level
    assert (true > np.exp(log_turning(coin, u)) * (1 + 1e-9)).any()
