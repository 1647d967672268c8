"""What the golden check would catch: each part of the certificate, left out or got wrong by 1 %.

A check that passes proves nothing until it has been seen to fail. The plants are all on the
unsafe side: an ε that comes out too low, or an interval narrower than what is known.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accountant import Contradiction, Gaussian, PldAccountant, PoissonSampled
from accountant.composition import Composition
from accountant.dominating_pairs.of_events import Domination, domination
from accountant.pld import accountant as pld
from accountant.pld import transform
from accountant.pld.contour import Inversion, place
from accountant.pld.decay import Decay
from accountant.pld.sums import Sum, saddle

GOLDEN = Path(__file__).parents[1] / "golden" / "dpsgd_epsilon.jsonl"
ROWS = {row["name"]: row for row in map(json.loads, GOLDEN.read_text().splitlines())}
CHECKED = [
    row for row in ROWS.values() if row["q"] < 1 and 0.01 < float(row["eps_exact"]) < 100
]  # fmt: skip
STEEP = ["seed001", "opacus_script", "small_n", "sst2", "abadi", "bigq_a", "fewsteps_d", "prv_doc"]


def step_of(row):
    return PoissonSampled(sampling_rate=row["q"], event=Gaussian(noise_multiplier=row["sigma"]))


def missed(rows=CHECKED):
    """The share of known values that lie outside their interval."""
    count = 0
    for row in rows:
        try:
            bounds = PldAccountant().compose(step_of(row), row["steps"]).epsilon(row["delta"])
        except Contradiction:  # seen through by the interval itself
            count += 1
            continue
        count += not bounds.lower <= float(row["eps_exact"]) <= bounds.upper
    return count / len(rows)


def test_nothing_planted_nothing_missed():
    assert len(CHECKED) > 30
    assert missed() == 0


PLANTS = {
    "noise 1 % too large": lambda q, sigma: (q, 1.01 * sigma),
    "noise 1 % too small": lambda q, sigma: (q, sigma / 1.01),
    "sampling rate 1 % too small": lambda q, sigma: (q / 1.01, sigma),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_another_parameter_is_caught(plant, monkeypatch):
    def planted(event):
        q, noise = PLANTS[plant](event.sampling_rate, event.event.noise_multiplier)
        inner = Gaussian(noise_multiplier=noise)
        return domination(PoissonSampled(sampling_rate=q, event=inner))

    monkeypatch.setattr(pld, "domination", planted)
    assert missed() > 0.9


def test_one_step_in_a_hundred_left_out_is_caught(monkeypatch):
    def fewer(self):
        return [(event, n - n // 100) for event, n in self._counts.items()]

    monkeypatch.setattr(Composition, "events", property(fewer))
    assert missed([row for row in CHECKED if row["steps"] >= 100]) > 0.9


def test_the_cheaper_direction_alone_is_caught(monkeypatch):
    def added_only(event):
        _, added = domination(event).upper
        return Domination((added, added), (added, added))

    monkeypatch.setattr(pld, "domination", added_only)
    assert missed([row for row in CHECKED if row["steps"] > 1]) > 0.9  # one has a closed form


def test_the_directions_exchanged_step_by_step_are_caught(monkeypatch):
    """Half the steps as removed and half as added: no data sets are such neighbours."""

    def halves(self):
        return [
            (replace(event, group_size=1), n)
            for event, count in self._counts.items()
            for n in (count - count // 2, count // 2)
        ]

    seen = []

    def alternating(event):
        seen.append(event)
        removed, added = domination(event).upper
        pairs = (removed, added) if len(seen) % 2 else (added, removed)
        return Domination(pairs, pairs)

    monkeypatch.setattr(Composition, "events", property(halves))
    monkeypatch.setattr(pld, "domination", alternating)
    assert missed([row for row in CHECKED if row["steps"] >= 100]) > 0.9


def test_transforms_off_by_more_than_they_say_are_caught(monkeypatch):
    exactly = transform._psi

    def off(*args):
        psi, kappa = exactly(*args)
        return 0.98 * psi, kappa

    monkeypatch.setattr(transform, "_psi", off)
    assert missed() > 0.7


def test_transforms_off_by_no_more_than_they_say_are_allowed_for(monkeypatch):
    exactly = transform._psi

    def off_and_said_so(*args):
        psi, kappa = exactly(*args)
        return (1 - 1e-6) * psi, kappa + 1e-6 * np.abs(psi)

    monkeypatch.setattr(transform, "_psi", off_and_said_so)
    assert missed() == 0


def test_an_error_said_to_be_huge_widens_the_interval_and_never_moves_it(monkeypatch):
    exactly = transform._psi

    def humble(*args):
        psi, kappa = exactly(*args)
        return psi, kappa + 1e-3

    monkeypatch.setattr(transform, "_psi", humble)
    assert missed(CHECKED[::6]) == 0


def placed(name, smoothing):
    """A row's losses in its worse direction, and a contour for them."""
    row = ROWS[name]
    total = Sum([(domination(step_of(row)).upper[0], row["steps"])])
    near = saddle(total, log_delta=math.log(row["delta"]))
    return total, place(total, near, smoothing, 1e-3), float(row["eps_exact"]), row["delta"]


def holds(inversion, epsilon, delta):
    lower, upper = inversion.delta(epsilon)
    return lower <= delta <= upper


WORSE = {
    "as placed": {},
    "aliases three times as near": {"period": 1 / 3},
    "cut off at half": {"reach": 1 / 2},
    "cut off at an eighth": {"reach": 1 / 8},
    "left of the saddle": {"tilt": 0.7},
    "right of the saddle": {"tilt": 1.2},
}


def worse(near, how):
    return replace(near, **{name: x * getattr(near, name) for name, x in WORSE[how].items()})


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("how", WORSE)
@pytest.mark.parametrize("smoothing", [1e-5, 1e-3, 1.0])
def test_any_contour_gives_bounds_that_hold(name, how, smoothing):
    """Where to integrate is a matter of cost alone."""
    total, near, epsilon, delta = placed(name, smoothing)
    assert holds(Inversion(total, worse(near, how)), epsilon, delta)


@pytest.mark.parametrize("name", STEEP)
def test_aliases_left_in_are_caught(name, monkeypatch):
    total, near, epsilon, delta = placed(name, 1e-5)
    monkeypatch.setattr(Inversion, "_log_aliases", lambda self, epsilon: -math.inf)
    inversion = Inversion(total, worse(near, "aliases three times as near"))
    assert not holds(inversion, epsilon, delta)


@pytest.mark.parametrize("name", [name for name in STEEP if name != "bigq_a"])
def test_smoothing_taken_for_the_truth_is_caught(name):
    total, near, epsilon, delta = placed(name, 1e-3)
    inversion = Inversion(total, near)
    inversion._density, inversion._error_density = np.zeros_like(inversion._density), 0.0
    assert not holds(inversion, epsilon, delta)


@pytest.mark.parametrize("name", STEEP)
def test_a_tail_cut_off_and_forgotten_is_caught(name, monkeypatch):
    total, near, epsilon, delta = placed(name, 1e-6)
    short = [replace(near, reach=near.reach / 2**n) for n in range(9)]
    assert all(holds(Inversion(total, cut), epsilon, delta) for cut in short)
    monkeypatch.setattr(Decay, "log_tail", lambda self, u: -math.inf)
    assert not all(holds(Inversion(total, cut), epsilon, delta) for cut in short)
