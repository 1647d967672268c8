"""Correlated noise in training: what it may cost, what it is, and how a run goes on with it."""

import itertools
import math

import numpy as np
import pytest
import scipy
import torch
from correlated_problem import BATCH, CLIP, RECORDS, STEPS, corr, trained
from small_problem import weights

from accountant import Gaussian, InvalidValue, NoCost, PoissonSampled, UnsupportedEvent
from accountant.factorization.participation import SinglePass
from dpsgd_torch import Privacy
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.samplers.cyclic import CyclicPoisson, cyclic
from dpsgd_torch.samplers.passes import Passes
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Linear
from dpsgd_torch.training import session

pytestmark = pytest.mark.filterwarnings("ignore:local, not covered by ε")

FALSE_ALARM = 1e-9
FACTORS = {"bandmf": 8, "banded_sqrt": 8, "banded_inverse_sqrt": 3, "bandinvmf": 4, "blt": 3}
BLT = Correlated("blt", 3)
MARGIN = 2.5e-3  # vectors are clipped to a little below the clip norm


class Seen(Correlated):
    """Correlated noise that shows the sums it was given."""

    sums: list[torch.Tensor]

    def add(self, sums, params, release):
        Seen.sums.append(torch.cat([s.double().flatten() for s in sums]).clone())
        super().add(sums, params, release)


def difference(noise, sampler, neighbours):
    """C times what two neighbours' sums differ by, step by step; and the plan."""
    streams = []
    for inputs, targets in neighbours:
        Seen.sums = []
        plan = trained(noise, sampler, inputs, targets).fit().plan
        streams.append(torch.stack(Seen.sums).numpy())
    factor = plan.noise.of_plan.factor
    moved = scipy.signal.lfilter(factor.coefficients, [1.0], streams[0] - streams[1], axis=0)
    return moved, plan


def one_replaced():
    """Records of no gradient, and one whose is longer than the clip, or its opposite."""
    inputs = torch.eye(6)[torch.arange(RECORDS) % 6]
    targets = torch.zeros(RECORDS)
    targets[-1] = 7.0
    other = targets.clone()
    other[-1] = -7.0
    return (inputs, targets), (inputs, other)


def one_removed():
    inputs, targets = one_replaced()[0]
    return (inputs, targets), (inputs[:-1], targets[:-1])


@pytest.mark.parametrize(("kind", "bands"), [("bandmf", 1), *FACTORS.items()])
def test_over_passes_a_replaced_record_moves_all_releases_by_what_is_charged(kind, bands):
    moved, plan = difference(Seen(kind, bands), Passes, one_replaced())
    planned = plan.noise.of_plan
    charged = plan.event(0).noise_multiplier  # 1 / what is moved, for noise of deviation σ
    assert charged == 2.0 / planned.exchanged == 1.0
    most = CLIP * planned.sensitivity * planned.exchanged
    reached = np.linalg.norm(moved)
    assert reached <= most
    once = planned.factor.sensitivity(SinglePass()) * CLIP * planned.exchanged
    assert reached > 1.9 * once  # four passes: what one participation moves is far too little
    own = np.flatnonzero(np.abs(moved).max(1))[0]
    ahead = planned.factor.coefficients
    worst = np.zeros(STEPS + len(ahead))
    for start in range(own, STEPS, plan.sampling.period):
        worst[start : start + len(ahead)] += ahead
    expected = 2 * CLIP * np.linalg.norm(worst[:STEPS])
    assert reached == pytest.approx(expected, rel=MARGIN)  # the clip keeps a margin
    if own == 0:
        assert reached == pytest.approx(most, rel=MARGIN)


@pytest.mark.parametrize(("kind", "bands"), [("bandmf", 8), ("blt", 3), ("bandinvmf", 4)])
def test_the_first_place_of_an_order_reaches_the_sensitivity_over_passes(kind, bands):
    """The record that stands in the first batch, found by its participations."""
    plan = trained(Correlated(kind, bands), Passes, *one_replaced()[0]).plan
    stream = lambda name, step=0: np.random.default_rng(0)  # noqa: E731
    first = plan.sampling.draw(stream, 0, RECORDS, None).rows[0]
    joined = np.array([
        first in plan.sampling.draw(stream, step, RECORDS, None).rows for step in range(STEPS)
    ])  # fmt: skip
    c = plan.noise.of_plan.factor.coefficients
    moved = np.linalg.norm(scipy.signal.lfilter(c, [1.0], joined.astype(float)))
    assert moved == pytest.approx(plan.noise.of_plan.sensitivity, rel=1e-9)


@pytest.mark.parametrize("kind", ["bandmf", "banded_sqrt"])
def test_in_a_period_of_cyclic_samples_a_record_moves_one_column(kind):
    moved, plan = difference(Seen(kind, 4), cyclic(6), one_removed())
    assert plan.sampling.rate_of_part == 1
    most = CLIP * plan.noise.of_plan.sensitivity
    own = np.flatnonzero(np.abs(moved).max(1))[0]
    periods = [np.linalg.norm(moved[t : t + 6]) for t in range(own, STEPS, 6)]
    assert max(periods) <= most
    assert periods[0] == pytest.approx(most, rel=MARGIN)
    assert len(periods) == sum(
        count for event, count in plan.events() if isinstance(event, PoissonSampled)
    )


class TwiceInABand(CyclicPoisson):
    """A fault: parts come round twice as often as is told."""

    def draw(self, stream, step, records, units):
        own = stream("parts", step=0).integers(self.cycle // 2, size=records)
        return self.in_slots(stream, np.flatnonzero(own == step % (self.cycle // 2)), units)


def test_a_record_that_joins_twice_in_a_band_is_caught():
    def fault(**numbers):
        return TwiceInABand(cycle=6, **numbers)

    moved, plan = difference(Seen("banded_sqrt", 6), fault, one_removed())
    most = CLIP * plan.noise.of_plan.sensitivity
    own = np.flatnonzero(np.abs(moved).max(1))[0]
    assert max(np.linalg.norm(moved[t : t + 6]) for t in range(own, STEPS, 6)) > 1.5 * most


def noise_of(trainer):
    """What each step added to sums of nothing, over the deviation of what is fresh: (steps, d)."""
    before, added = weights(trainer.model).double(), []
    for _ in trainer.run():
        now = weights(trainer.model).double()
        added.append((before - now) * BATCH)
        before = now
    fresh = 2.0 * CLIP
    if isinstance(trainer.plan.noise, Correlated):
        fresh *= trainer.plan.noise.of_plan.sensitivity
    return torch.stack(added).numpy() / fresh


def projections():
    rng = np.random.default_rng(3)
    prefixes = np.tril(np.ones((STEPS, STEPS)))
    return np.concatenate([np.eye(STEPS), prefixes, rng.standard_normal((40, STEPS))])


def refused(white, deviation=1.0):
    """Along how many projections over time what should be white has another deviation."""
    d, found = white.shape[1], projections()
    energies = ((found @ white) ** 2).sum(1) / (found**2).sum(1) / deviation**2
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], d)
    return int(((energies < low) | (energies > high)).sum())


@pytest.fixture(scope="module")
def nothing():
    values = 1500
    return torch.ones(RECORDS, values), torch.zeros(RECORDS), values


@pytest.mark.parametrize(
    ("noise", "sampler"),
    [
        (Correlated("bandmf", 6), cyclic(6)),
        (Correlated("banded_sqrt", 4), cyclic(6)),
        (Correlated("bandmf", 6), Passes),
        (Correlated("banded_sqrt", 8), Passes),
        (Correlated("banded_inverse_sqrt", 4), Passes),
        (Correlated("blt", 3), Passes),
    ],
)
def test_c_times_the_noise_is_white_along_every_projection_over_time(noise, sampler, nothing):
    trainer = trained(noise, sampler, *nothing)
    drawn, factor = noise_of(trainer), trainer.plan.noise.of_plan.factor
    white = scipy.signal.lfilter(factor.coefficients, [1.0], drawn, axis=0)
    every = len(projections())
    assert refused(white) == 0
    assert refused(white, 2 / 3) == refused(white, 3 / 2) == every
    assert refused(drawn) > every / 2  # it is correlated, and the test sees it
    growth = np.array(trainer.plan.noise.of_plan.growth)
    assert np.sqrt((drawn**2).mean(1)) == pytest.approx(growth, rel=0.12)


def test_its_prefix_sums_have_the_error_of_the_factor_and_less_than_independent_noise(nothing):
    noise, other = Correlated("bandmf", 6), trained(INDEPENDENT, PoissonSampler, *nothing)
    trainer = trained(noise, cyclic(6), *nothing)
    planned = trainer.plan.noise.of_plan

    def error(added):
        return math.sqrt((np.cumsum(added, 0) ** 2).mean())

    mine, theirs = error(noise_of(trainer)) * planned.sensitivity, error(noise_of(other))
    expected = planned.factor.root_mean_square_error(SinglePass())
    assert mine == pytest.approx(expected, rel=0.05)
    assert mine < 0.6 * theirs


@pytest.mark.parametrize(
    ("sampler", "noise", "kept"), [(cyclic(4), None, 7), (Passes, None, 1), (Passes, BLT, 8)]
)
def test_a_run_that_was_cut_goes_on_bit_for_bit_and_pays_nothing(tmp_path, sampler, noise, kept):
    whole = corr(tmp_path / "whole", sampler, noise=noise).fit()
    cut = corr(tmp_path / "cut", sampler, noise=noise)
    for _ in itertools.islice(cut.run(), kept):
        pass
    cut.close()
    again = corr(tmp_path / "cut", sampler, noise=noise).resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.events() == whole.ledger.events()
    assert again.privacy_spent().steps_charged_again == 0


def test_elsewhere_it_draws_another_whole_and_pays_it_or_is_refused(tmp_path, monkeypatch):
    one = Gaussian(noise_multiplier=1.5, relation=Passes.relation)
    free = NoCost(relation=Passes.relation)
    for name, epsilon in (("free", None), ("bound", 2.5)):
        cut = corr(tmp_path / name, Passes, epsilon=epsilon)
        for _ in itertools.islice(cut.run(), 8):
            pass
        cut.close()
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    again = corr(tmp_path / "free", Passes).resume().fit()
    assert sum(count for event, count in again.ledger.events() if event == one) == 2
    again.privacy_spent()  # what was paid anew is no more than it may be
    bound = corr(tmp_path / "bound", Passes, epsilon=2.5).resume()
    kept, taken = bound.done, torch.zeros(1)
    bound.fit()
    assert "would reach" in bound.stopped
    assert bound.done == kept  # before anything was drawn
    assert torch.equal(bound.noise_state["taken"], taken)
    assert bound.ledger.events() == [(one, 1), (free, 7)]


def test_cyclic_steps_drawn_anew_are_paid_period_by_period(tmp_path, monkeypatch):
    cut = corr(tmp_path / "cut")
    for _ in itertools.islice(cut.run(), 10):
        pass
    cut.close()
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")
    again = corr(tmp_path / "cut").resume()
    kept = again.done
    again.fit()
    periods = sum(n for e, n in again.ledger.events() if isinstance(e, PoissonSampled))
    assert periods == math.ceil(10 / 4) + math.ceil((STEPS - kept) / 4)
    assert again.privacy_spent().steps == STEPS + 10 - kept


def test_epsilon_calibrates_the_noise():
    for sampler in (cyclic(4), Passes):
        trainer = corr(None, sampler, noise_multiplier=None, epsilon=2.0).fit()
        assert 1.999 < trainer.privacy_spent().epsilon <= 2.0


def test_what_has_no_analysis_is_refused_before_anything_is_charged():
    for sampler, error, words in [
        (PoissonSampler, UnsupportedEvent, "is analysed for cyclic Poisson samples and for passes"),
        (cyclic(3), InvalidValue, "cycle = 3: must be at least 4, the bands of correlated:bandmf"),
    ]:
        with pytest.raises(error, match=words):
            corr(None, sampler)
    for noise in (Correlated("banded_inverse_sqrt", 4), BLT):
        with pytest.raises(InvalidValue, match=f"must be at least 24, the bands of {noise}"):
            corr(None, cyclic(4), noise=noise)
    with pytest.raises(InvalidValue, match="must be as many as bands"):
        corr(None, Passes, noise=Correlated("banded_sqrt", 25))
    with pytest.raises(InvalidValue, match="must be one of bandmf"):
        Correlated("tree", 4)
    falls = Privacy(
        noise_multiplier=2.0,
        delta=1e-3,
        clip_norm=Linear(first=1.0, last=0.5, steps=STEPS),
        noise=Correlated("bandmf", 4),
    )
    with pytest.raises(InvalidValue, match="must be constant where several steps are paid for"):
        corr(None, privacy=falls)


def test_a_release_whose_past_was_lost_or_scaled_is_refused():
    for damage, noise, sampler in ((math.nan, None, None), (10.0, None, None), (10.0, BLT, Passes)):
        trainer = corr(None, sampler, noise=noise)
        steps = trainer.run()
        for _ in range(5):
            next(steps)
        for name, past in trainer.noise_state.items():
            if name.startswith("past"):
                past *= damage
        with pytest.raises(GuaranteeBroken, match="noise energy"):
            for _ in steps:
                pass


def test_many_processes_are_refused_by_name():
    class Two:
        is_alone, size = False, 2

    from dpsgd_torch.training.arguments import refuse_apart

    with pytest.raises(InvalidValue, match="is carried from step to step by one process, and 2"):
        refuse_apart(corr().plan, Two())
    refuse_apart(corr(None, PoissonSampler, noise=INDEPENDENT).plan, Two())
