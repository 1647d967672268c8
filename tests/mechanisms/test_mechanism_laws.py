"""What is drawn fits the ε it is charged at, and a planted error of sensitivity is caught.

Noise comes from the operating system, so nothing repeats: each check fails falsely less than once
in a billion runs.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from accountant import Laplace
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.mechanisms import exponential, laplace, statistics
from dpsgd_torch.mechanisms.exponential import choice_event, choose
from dpsgd_torch.mechanisms.laplace import add_laplace
from dpsgd_torch.mechanisms.randomized_response import LabelPrivacy
from dpsgd_torch.mechanisms.statistics import FeatureSelection, FeatureStatistics, LabelFrequencies

RARE = 1e-10  # on either side of an interval, and of a fit's p-value


def at_least(hits_p, hits_q, draws) -> float:
    """A lower bound on ε from how often two neighbours had an event [Clopper, Pearson 1934]."""
    low = stats.beta.ppf(RARE, hits_p, draws - hits_p + 1)
    high = stats.beta.isf(RARE, hits_q + 1, draws - hits_q)
    return math.log(low / high)


DRAWS = 50_000


def laplace_bound(epsilon: float, moves: float) -> float:
    """The ε seen between sums of 0 and of ``moves``, charged as if a neighbour moved them by 1."""
    event = Laplace(noise_multiplier=1 / epsilon)
    p, q = (add_laplace(np.full(DRAWS, shift), event, 1.0) for shift in (0.0, moves))
    return at_least(np.count_nonzero(p <= 0), np.count_nonzero(q <= 0), DRAWS)


@pytest.mark.parametrize("epsilon", [1.0])
def test_laplace_noise_costs_what_is_charged_and_no_less(epsilon):
    assert 0.85 * epsilon < laplace_bound(epsilon, moves=1.0) <= epsilon
    assert laplace_bound(epsilon, moves=2.0) > 1.3 * epsilon  # planted: twice the sensitivity


def test_laplace_noise_has_the_stated_law():
    noise = add_laplace(np.zeros(20_000), Laplace(noise_multiplier=3.0), 2.0)
    assert stats.kstest(noise, stats.laplace(scale=6.0).cdf).pvalue > RARE
    for planted in (4.0, 9.0):
        assert stats.kstest(noise, stats.laplace(scale=planted).cdf).pvalue < RARE


def statistics_of(values, columns=15_000):
    """Locations drawn for many equal columns: as many draws of one release."""
    asked = FeatureStatistics(
        low=np.full(columns, -10.0), high=np.full(columns, 10.0), noise_multiplier=1.0, size=1000
    )
    rows = np.repeat(np.array(values)[:, None], columns, axis=1)
    return asked.draw(rows)[0] / 10 * 1000


def test_a_row_beyond_its_range_moves_no_statistic_further_than_is_charged(monkeypatch):
    draws = 15_000
    without, joined = statistics_of([1.0, 2.0]), statistics_of([1.0, 2.0, 30.0])
    middle = float(np.median(without))
    seen = at_least(np.count_nonzero(without <= middle), np.count_nonzero(joined <= middle), draws)
    assert 0.7 < seen <= 1.0
    honest = laplace.exact_sums
    monkeypatch.setattr(  # planted: nobody clips
        statistics, "exact_sums", lambda values, bound: values.sum(axis=0)
    )
    monkeypatch.setattr(statistics.np, "clip", lambda values, *_: values)
    joined = statistics_of([1.0, 2.0, 30.0])
    monkeypatch.undo()
    assert honest is laplace.exact_sums
    seen = at_least(np.count_nonzero(without <= middle), np.count_nonzero(joined <= middle), draws)
    assert seen > 1.5


def test_a_row_moves_all_label_counts_together_by_no_more_than_is_charged(monkeypatch):
    moved = []
    monkeypatch.setattr(statistics, "add_laplace", lambda sums, *_: moved.append(sums) or sums)
    asked = LabelFrequencies(noise_multiplier=5.0, size=100, most=3.0)
    labels = (np.random.default_rng(0).random((50, 40)) < 0.1).astype(float)
    for row in (np.ones(40), np.eye(40)[3], np.full(40, np.nan), np.full(40, 1e9), -np.ones(40)):
        asked.draw(labels)
        asked.draw(np.vstack([labels, row]))
        without, joined = moved[-2:]
        assert np.abs(joined - without).sum() <= 3.0
    asked.draw(labels)
    asked.draw(np.vstack([labels, np.ones(40)]))
    assert np.abs(moved[-1] - moved[-2]).sum() > 2.99


def choices(scores, epsilon, sensitivity, *, monotone, draws=6000):
    event = choice_event(epsilon)
    picked = [
        choose(np.array(scores), event, sensitivity=sensitivity, monotone=monotone)[0]
        for _ in range(draws)
    ]
    return np.bincount(picked, minlength=len(scores))


def test_the_exponential_mechanism_has_its_law():
    counts = choices([0.0, 1.0, 3.0, 2.5], 1.0, 1.0, monotone=True)
    weights = np.exp([0.0, 1.0, 3.0, 2.5])
    assert stats.chisquare(counts, 6000 * weights / weights.sum()).pvalue > RARE
    flat = np.exp(np.array([0.0, 1.0, 3.0, 2.5]) / 2)  # what it is not: half as sharp
    assert stats.chisquare(counts, 6000 * flat / flat.sum()).pvalue < RARE


def odds_move(neighbour, epsilon=2.0) -> float:
    """A lower bound on how far the log-odds of two outcomes move, with chance 1 − 2e-9 or so."""
    logs = []
    for scores in ([5.0, 5.0], neighbour):
        a, b = choices(scores, epsilon, 1.0, monotone=True, draws=5000)
        logs.append((math.log(a / b), math.sqrt(1 / a + 1 / b)))
    (first, s1), (second, s2) = logs
    return abs(second - first) - 6.5 * math.hypot(s1, s2)


def test_a_choice_moves_odds_by_its_range_and_a_score_that_moves_further_is_caught():
    assert 1.0 < odds_move([6.0, 5.0]) <= 2.0
    assert odds_move([7.0, 5.0]) > 2.0  # planted: a neighbour moves a score by twice as much


def test_scores_that_move_either_way_are_charged_twice():
    """With odds e^ε at a gap of 2Δ: half as sharp as where all scores move the same way."""
    counts = choices([0.0, 2.0], 1.0, 1.0, monotone=False, draws=8000)
    weights = np.exp([0.0, 1.0])
    assert stats.chisquare(counts, 8000 * weights / weights.sum()).pvalue > RARE


def test_selection_keeps_what_is_extreme_and_counts_each_unit_once():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3000, 30))
    inputs[:, [4, 9, 20]] *= 6
    wide = {"low": np.full(30, -10.0), "high": np.full(30, 10.0)}
    asked = FeatureSelection(keep=3, epsilon=0.5, **wide)
    assert asked.draw(inputs).tolist() == [4, 9, 20]
    assert asked.events == [(choice_event(0.5), 3)]
    loud = FeatureSelection(keep=1, epsilon=50.0, **wide)
    one_unit = np.zeros((500, 30))
    one_unit[:, 7] = 9.0  # 500 rows of one person against three people's one row each
    others = np.zeros((3, 30))
    others[:, 2] = 9.0
    units = np.array([0] * 500 + [1, 2, 3])
    assert loud.draw(np.vstack([one_unit, others]), units).tolist() == [2]
    assert loud.draw(np.vstack([one_unit, others])).tolist() == [7]


def answers(label, privacy, draws=12_000):
    return privacy.draw(np.full(draws, label))


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_randomized_response_costs_what_is_charged_and_has_its_law(epsilon):
    privacy = LabelPrivacy(5, epsilon)
    told, other = answers(2, privacy), answers(0, privacy)
    seen = at_least(np.count_nonzero(told == 2), np.count_nonzero(other == 2), 12_000)
    assert 0.65 * epsilon < seen <= epsilon
    expected = np.full(5, 12_000 * (1 - privacy.told) / 4)
    expected[2] = 12_000 * privacy.told
    assert stats.chisquare(np.bincount(told, minlength=5), expected).pvalue > RARE


def test_answers_that_tell_too_often_are_refused_by_the_library_that_draws_them(monkeypatch):
    monkeypatch.setattr(LabelPrivacy, "told", property(lambda _: 0.9))
    with pytest.raises(GuaranteeBroken, match="randomized response"):
        LabelPrivacy(5, 1.0).draw(np.array([1]))


def test_the_debiased_loss_is_that_of_the_true_labels_in_the_mean():
    import torch
    from torch.nn import functional

    privacy = LabelPrivacy(4, 1.2)
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.tensor([0, 1, 2, 3, 1, 0])
    expected = torch.zeros(6, dtype=torch.float64)
    for answer in range(4):
        chance = torch.full((6,), (1 - privacy.told) / 3, dtype=torch.float64)
        chance[truth == answer] = privacy.told
        expected += chance * privacy.debiased()(outputs, torch.full((6,), answer))
    assert torch.allclose(expected, functional.cross_entropy(outputs, truth, reduction="none"))


@pytest.mark.parametrize("planted", [0.5, 0.99])
def test_a_scale_below_what_is_charged_is_refused_by_the_library_that_draws_it(planted):
    """The price that OpenDP puts on its own draw must not be above the event's."""
    with pytest.raises(GuaranteeBroken, match="Laplace"):
        laplace.refuse_dearer(1 / (4.0 * planted), 0.25, "Laplace")
    laplace.refuse_dearer(0.25, 0.25, "Laplace")
    with pytest.raises(GuaranteeBroken, match="exponential"):
        exponential.refuse_dearer(0.02, 0.01, "exponential mechanism")


def test_statistics_are_near_the_truth_and_never_degenerate():
    rng = np.random.default_rng(0)
    data = rng.normal(1.5, 2.0, size=(20_000, 6))
    asked = FeatureStatistics(
        low=np.full(6, -10.0), high=np.full(6, 10.0), noise_multiplier=20.0, size=20_000
    )
    location, scale = asked.draw(data)
    assert np.allclose(location, 1.5, atol=0.3)
    assert np.allclose(scale, 2.0, atol=0.4)
    drowned = dataclasses.replace(asked, noise_multiplier=1e6)
    location, scale = drowned.draw(data)
    assert (np.abs(location) <= 10).all()
    assert (scale >= 0.5).all()
    assert np.isfinite(scale).all()
