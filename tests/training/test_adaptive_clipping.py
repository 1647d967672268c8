"""Adaptive clip norm: what sum and count tell together is what one Gaussian release is charged."""

import math

import numpy as np
import pytest
import torch
from clip_steps import OTHERS, ROWS, count_told, step, trainer
from scipy import stats
from small_problem import make_trainer, small_data
from torch.utils.data import TensorDataset

from dpsgd_torch import Privacy, RunError
from dpsgd_torch.audit.canaries import Canaries
from dpsgd_torch.audit.replayed import largest_change
from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.privacy.plan import Sampling
from dpsgd_torch.training.followed import FollowedClipNorm, noised_count

QUIET = StepPlan(1.0, 0.0, 0, 0.0)
ADAPTIVE = AdaptiveClipping(0.5, 0.1)
MULTIPLIERS = [(0.7, 1), (1.0, 10), (1.3, 250), (40.0, 4096)]


def told(rows, **how):
    """Sum and count of a step without noise."""
    moved, clip_norm = step(rows, ADAPTIVE, plan=QUIET, **how)
    return moved, count_told(clip_norm, ADAPTIVE)


def distance(one, other, z, vectors):
    """How far two steps are apart, in deviations of the noise of each coordinate, times z."""
    sums = float((one[0] - other[0]).norm()) / ADAPTIVE.noise_of_sums(z, vectors)
    count = (one[1] - other[1]) / ADAPTIVE.noise_of_count(z, vectors)
    return z * math.hypot(sums, count)


def test_a_record_moves_sum_and_count_together_by_one_sensitivity():
    without = told(OTHERS)
    joined = {name: told([*OTHERS, row]) for name, row in ROWS.items()}
    for z, vectors in MULTIPLIERS:
        moves = {name: distance(both, without, z, vectors) for name, both in joined.items()}
        assert max(moves.values()) <= 1 + 1e-9
        assert moves["huge"] > 1 - 2.0**-8  # reached, but for the margin
        assert {moves[name] for name in ("NaN", "infinite in one layer")} == {0.0}  # ½ is not added
        half = z / (2 * ADAPTIVE.noise_of_count(z, vectors))
        assert moves["zero"] == pytest.approx(half, rel=1e-6)


def test_in_a_microbatch_both_move_twice_as_far_and_are_charged_so():
    back, pairs = [-value for value in ROWS["huge"]], []
    for others in (back, ROWS["zero"]):
        left = told([*OTHERS, others], slots=[1, 1, 2, 3, 0], size=5)
        for row in ROWS.values():
            row = [10 * value for value in row]
            pairs += [(told([*OTHERS, others, row], slots=[1, 1, 2, 3, 0, 0], size=5), left)]
    pairs += [(told([*OTHERS, ROWS["huge"]]), told([*OTHERS, back]))]  # one vector exchanged
    for z, vectors in MULTIPLIERS:
        sampling = Sampling(dataset_size=1000, batch_size=20, microbatch_size=5, steps=1)
        charged = z / sampling.event(z).event.noise_multiplier
        most = max(distance(*pair, z, vectors) for pair in pairs)
        assert 1.9 < most <= charged + 1e-9 == 2 + 1e-9  # a charge of one would be caught


def test_a_count_of_zeros_and_ones_is_never_told(monkeypatch):
    """Planted: b in {0, 1}, whose sensitivity is 1, at the price of ½."""
    monkeypatch.setattr(
        AdaptiveClipping, "counted", lambda self, norms, clip: (norms <= clip) * 1.0
    )
    with pytest.raises(GuaranteeBroken, match="count of clipped vectors"):
        told([ROWS["zero"]])


def test_a_count_beside_the_charge_would_be_caught():
    """Planted: the sum's noise as it is, and the count for nothing."""
    far = told([*OTHERS, ROWS["huge"]])
    near = told(OTHERS)
    free = math.hypot(float((far[0] - near[0]).norm()), (far[1] - near[1]) / 2.0)  # z = 1, σ = 2
    assert free > 1.02
    assert distance(far, near, 1.0, 10) <= 1 + 1e-9


@pytest.mark.parametrize(("z", "vectors"), MULTIPLIERS)
def test_the_two_noises_are_together_the_one_that_is_charged(z, vectors):
    sums, count = ADAPTIVE.noise_of_sums(z, vectors), ADAPTIVE.noise_of_count(z, vectors)
    together = 1 / math.sqrt(1 / sums**2 + 1 / (2 * count) ** 2)
    assert z <= together <= z * (1 + 1e-12)
    assert sums <= 1.033 * z
    if 20 * z < vectors / 2:
        assert count == pytest.approx(vectors / 20)


@pytest.mark.parametrize("scale", [1.0, 2 / 3, 3 / 2])
def test_the_counts_noise_has_the_planned_deviation(scale):
    """Of the count, σ is accepted, ⅔σ and 3⁄2σ are not; and of the sum beside it."""
    plan = StepPlan(1.0, 1.5 * scale, 0, 2.5 * scale)
    steps = [step([], ADAPTIVE, plan=plan, seed=seed, declared=1) for seed in range(150)]
    counts = np.array([count_told(clip_norm, ADAPTIVE) for _, clip_norm in steps])
    sums = torch.cat([moved for moved, _ in steps]).numpy()
    for noise, deviation in ((counts, 2.5), (sums, 1.5)):
        p = stats.chi2(noise.size).cdf(float((noise / deviation) @ (noise / deviation)))
        assert (1e-6 < p < 1 - 1e-6) == (scale == 1.0)
    first = sums.reshape(150, -1)[:, 0]
    assert abs(np.corrcoef(counts, first)[0, 1]) < 0.4  # drawn apart


def test_noise_of_the_count_is_repeated_by_its_key_and_by_the_count_where_it_hangs_on_it():
    def noise(total, seed, hung=""):
        return noised_count(total, 3.0, np.random.default_rng(seed), hung) - total

    assert noise(1.0, 7) == pytest.approx(noise(2.0, 7), abs=1e-5)
    assert noise(1.0, 7) != pytest.approx(noise(1.0, 8), abs=1e-5)
    assert noise(1.0, 7, "a") == noise(1.0, 7, "a")
    assert noise(1.0, 7, "a") != pytest.approx(noise(2.0, 7, "a"), abs=1e-5)
    assert noise(1.0, 7, "a") != pytest.approx(noise(1.0, 7, "b"), abs=1e-5)
    assert noise(3.0, 7, "ab") == pytest.approx(0.7455949783325195, abs=1e-12)  # as it ever was


def test_the_clip_norm_finds_the_quantile_and_stays_within_its_limits():
    norms = torch.from_numpy(np.random.default_rng(0).lognormal(1.0, 0.5, 4000))
    for quantile in (0.2, 0.5, 0.8):
        followed = FollowedClipNorm(AdaptiveClipping(quantile, 0.3), 0.1)
        for _ in range(200):
            told = float(followed.clipping.counted(norms, followed.clip_norm).mean())
            followed.clip_norm = followed.clipping.next(followed.clip_norm, told, 0.1)
        assert followed.clip_norm == pytest.approx(float(norms.quantile(quantile)), rel=0.01)
    limited = AdaptiveClipping(limit=8.0)
    assert limited.next(1.0, -1e9, 1.0) == 8.0
    assert limited.next(1.0, 1e9, 1.0) == 1 / 8


@pytest.mark.parametrize("kept", [math.nan, math.inf, -1.0, 0.0, 4.1, 0.06])
def test_a_checkpoint_whose_clip_norm_no_run_comes_to_is_not_resumed(kept):
    followed = FollowedClipNorm(AdaptiveClipping(limit=8.0), 0.5)
    with pytest.raises(RunError, match=r"clip norm = .* in the checkpoint"):
        followed.load_state_dict({"clip_norm": torch.tensor(kept)})
    followed.load_state_dict({"clip_norm": torch.tensor(4.0, dtype=torch.float64)})
    assert followed.clip_norm == 4.0


def test_an_audit_holds_sum_and_count_together_against_the_charge(monkeypatch):
    run = trainer("adaptive:0.5", epochs=1).fit()
    honest = largest_change(run, 3)
    assert honest.p_value == 1.0
    monkeypatch.setattr(
        AdaptiveClipping, "counted", lambda self, norms, clip: 3.0 * (norms <= clip)
    )
    run.state.followed.clip_norm = 1e3  # all are below
    assert largest_change(run, 3).p_value == 0.0


def test_two_data_sets_of_one_name_with_equal_counts_tell_them_with_other_noise():
    """All rows are clipped in both: the counts are equal, and the sums are not."""
    told = []
    for seed in (1, 1, 2):
        inputs, targets = small_data(seed=seed)
        data = FromDataset(TensorDataset(inputs, targets), fingerprint="v1")
        run = trainer("adaptive:0.5", clip_norm=1e-3, data=data, epochs=1)
        progress = run.run()
        next(progress)
        progress.close()
        told.append(run.state.followed.clip_norm)
    assert told[0] == told[1] != told[2]


def test_a_step_clips_to_the_norm_that_the_step_before_told():
    run = trainer("adaptive:0.9:2", epochs=1)
    seen = []
    for _ in run.run():
        seen.append(run.state.followed.clip_norm)
    assert len(set(seen)) == len(seen)
    assert run.plan.step(3).clip_norm == 0.5 != run.state.step_plan(3).clip_norm == seen[-1]
    events = [event for event, _ in run.ledger.events()]
    assert events == [run.plan.sampling.event(1.0)]


def test_a_count_beyond_its_vectors_is_never_told(monkeypatch):
    honest = AdaptiveClipping.counted
    monkeypatch.setattr(AdaptiveClipping, "counted", lambda *a: 2 * honest(*a))
    with pytest.raises(GuaranteeBroken, match="count of clipped vectors"):
        step([ROWS["huge"]], ADAPTIVE, plan=QUIET)


def test_canaries_are_not_counted_and_find_the_noise_that_the_sum_has():
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, clipping="adaptive:0.5")
    run = make_trainer(privacy=privacy, epochs=2, batch_size=24)
    canaries = Canaries(count=100).insert(run)
    report = canaries.report(run.fit())
    assert not report.faults
    assert report.best <= report.epsilon
