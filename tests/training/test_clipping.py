"""Each clip against an oracle in float64, and what one record can move, in steps of training."""

import math

import numpy as np
import pytest
import torch
from clip_steps import ENGINES, HALVES, OTHERS, ROWS, WIDTH, Halves, groups_of, step, trainer
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPPerLayerOptimizer
from scipy import stats
from small_problem import make_trainer, small_data, small_model

from accountant import InvalidValue
from dpsgd_torch.audit.replayed import largest_change, replay
from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.clipping.automatic import AutomaticClipping
from dpsgd_torch.clipping.flat import FLAT, FlatClipping
from dpsgd_torch.clipping.kinds import clipping_from_json, clipping_of
from dpsgd_torch.clipping.per_group import GroupClipping
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.schedules import Linear
from dpsgd_torch.storage.run_folder import RunFolder

CUT = 2.0**-9  # of the clip norm, that the graph engine keeps back
KINDS = {
    "flat": FLAT,
    "automatic": AutomaticClipping(0.01),
    "per-layer": GroupClipping(),
    "per-layer by size": GroupClipping("size"),
    "adaptive": AdaptiveClipping(),
}


def oracle(kind, row, clip):
    """One example's clipped gradient, in float64."""
    g = torch.tensor(row, dtype=torch.float64)
    if not math.isfinite(float(torch.tensor(row).norm())):
        return torch.zeros_like(g)
    if isinstance(kind, AutomaticClipping):
        return g * clip / (g.norm() + kind.gamma)
    if isinstance(kind, GroupClipping):
        parts = g.split(HALVES)
        total = len(parts) if kind.split == "equal" else WIDTH
        weights = [1, 1] if kind.split == "equal" else HALVES
        bounds = [clip * math.sqrt(w / total) for w in weights]
        pairs = zip(parts, bounds, strict=True)
        return torch.cat([p * min(1.0, b / max(float(p.norm()), 1e-300)) for p, b in pairs])
    return g * min(1.0, clip / max(float(g.norm()), 1e-300))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_step_is_the_sum_of_clipped_gradients_one_example_at_a_time(kind, engine):
    rows = list(ROWS.values())
    told = step(rows, kind, engine=engine)[0]
    expected = sum(oracle(kind, row, 1.0) for row in rows)
    # each is cut to a margin below, which differs between the engines
    assert float((told - expected).norm()) <= 1.01 * CUT * len(rows)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_record_moves_a_step_by_the_clip_norm_at_most_and_by_all_of_it_when_huge(kind, engine):
    without = step(OTHERS, kind, engine=engine)[0]
    moves = {
        name: float((step([*OTHERS, row], kind, engine=engine)[0] - without).norm())
        for name, row in ROWS.items()
    }
    assert max(moves.values()) <= 1.0
    assert moves["huge"] >= 1.0 - 1.01 * CUT
    silent = ("zero", "NaN", "infinite", "infinite in one layer", "beyond float32 in one layer")
    assert {moves[name] for name in silent} == {0.0}
    assert moves["tiny"] < 1e-9


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_record_in_a_microbatch_moves_it_by_twice_that_and_no_more(kind):
    huge = ROWS["huge"]
    back = [-value for value in huge]
    most = 0.0
    for row in ROWS.values():
        joined = step(
            [*OTHERS, back, [10 * v for v in row]], kind, slots=[0, 1, 2, 3, 0, 0], size=5
        )
        left = step([*OTHERS, back], kind, slots=[0, 1, 2, 3, 0], size=5)
        most = max(most, float((joined[0] - left[0]).norm()))
    assert 2 * (1 - 1.01 * CUT) <= most <= 2.0  # a charge of one clip norm would be caught


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_sums_twice_as_long_are_never_released(kind):
    with pytest.raises(GuaranteeBroken, match="norm of the sum"):
        step([ROWS["huge"]], kind, cheat=2.0)


class TooLong(GroupClipping):
    def factors(self, norms, bound):
        return 2 * super().factors(norms, bound)


class RightForTheLongest(FlatClipping):
    """The planted fault: a kind of one's own that makes short vectors long."""

    name = "own"
    wrong = 4.0

    def factors(self, norms, bound):
        return super().factors(norms, bound).where(norms == norms.max(), self.wrong)


@pytest.mark.parametrize("wrong", [4.0, -4.0, math.nan])
def test_a_vector_that_a_kind_of_ones_own_makes_too_long_is_never_summed(wrong, monkeypatch):
    monkeypatch.setattr(RightForTheLongest, "wrong", wrong)
    with pytest.raises(GuaranteeBroken, match="clipped norm = "):
        step([ROWS["ordinary"], ROWS["long"]], RightForTheLongest())


def test_a_group_longer_than_its_share_is_never_summed():
    with pytest.raises(GuaranteeBroken, match=r"clipped norm = 1\.4.*must be ≤ clip_norm = 0\.7"):
        step([ROWS["long in one layer"]], TooLong())


@pytest.mark.parametrize("scale", [1.0, 2 / 3, 3 / 2])
@pytest.mark.parametrize("name", ["automatic", "per-layer"])
def test_the_noise_is_the_multiplier_times_the_clip_norm(name, scale):
    """σ is accepted, ⅔σ and 3⁄2σ are not."""
    plan = StepPlan(0.5, 2.0 * scale)
    told = [step([], KINDS[name], plan=plan, seed=seed)[0] for seed in range(60)]
    energy = float(torch.cat(told).square().sum()) / (2.0 * 0.5) ** 2
    p = stats.chi2(60 * WIDTH).cdf(energy)
    assert (1e-6 < p < 1 - 1e-6) == (scale == 1.0)


def test_shares_of_the_clip_norm_add_up_in_squares_whatever_the_groups():
    model = small_model()
    for kind in (GroupClipping(), GroupClipping("size")):
        groups = groups_of(kind, model)
        assert sum(group.share**2 for group in groups) == pytest.approx(1, abs=1e-12)
        assert sorted(p for group in groups for p in group.places) == [0, 1, 2, 3]
    groups = groups_of(GroupClipping(mapping={"a.weight": "one", "b.weight": "one"}), Halves())
    assert [(group.places, group.share) for group in groups] == [((0, 1), 1.0)]


def test_a_parameter_in_no_group_or_of_no_model_is_refused_by_name():
    with pytest.raises(InvalidValue, match=r"b\.weight: is trained and in no group"):
        groups_of(GroupClipping(mapping={"a.weight": "x"}), Halves())
    names = {"a.weight": "x", "b.weight": "y", "c.weight": "y"}
    with pytest.raises(InvalidValue, match=r"c\.weight: is no trained parameter"):
        groups_of(GroupClipping(mapping=names), Halves())


ODD = ("", "none", "automatic:x", "automatic:0", "automatic:1:2", "adaptive:2", "adaptive:nan")


@pytest.mark.parametrize("text", [*ODD, "per-layer:odd"])
def test_what_names_no_clipping_is_refused_in_a_line(text):
    with pytest.raises(InvalidValue, match=f"clipping = {text}: "):
        clipping_of(text)


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k != FLAT], ids=str)
def test_what_is_written_is_read_again(kind):
    assert clipping_from_json(kind.to_json()) == kind


@pytest.mark.parametrize("text", ["automatic:0.1", "per-layer", "adaptive:0.5"])
def test_a_run_costs_what_it_does_with_flat_clipping_and_says_how_it_clipped(text):
    flat, spent = make_trainer(epochs=1).fit(), trainer(text, epochs=1).fit().privacy_spent()
    was = flat.privacy_spent()
    assert (spent.epsilon, spent.noise_multiplier) == (was.epsilon, was.noise_multiplier)
    assert "clipping" not in was.to_json()
    assert spent.to_json()["clipping"] == clipping_of(text).to_json()


@pytest.mark.parametrize("text", ["automatic:0.1", "per-layer:size", "adaptive:0.3:0.5"])
def test_a_run_resumes_to_the_same_weights_and_clip_norm(text, tmp_path):
    asked = {"epochs": 1.2, "checkpoint_every": 3, "run_dir": tmp_path / "run"}
    whole, broken = trainer(text, epochs=1.2).fit(), trainer(text, **asked)
    progress = broken.run()
    for at in progress:
        if at.step == 8:
            break
    progress.close()
    broken.close()
    again = trainer(text, **asked).resume().fit()
    for p, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, other)
    assert again.privacy_spent().epsilon == whole.privacy_spent().epsilon
    if text.startswith("adaptive"):
        assert again.state.followed.clip_norm == whole.state.followed.clip_norm != 0.5


def test_an_older_contract_is_not_resumed_with_another_clip(tmp_path):
    broken = trainer("flat", run_dir=tmp_path / "run", epochs=1).fit()
    broken.close()
    with pytest.raises(Exception, match=r"its privacy changed.*clipping"):
        trainer("automatic", run_dir=tmp_path / "run", epochs=1).resume()


def test_what_has_no_analysis_is_refused_before_a_folder_is_made(tmp_path):
    run, falling = tmp_path / "run", Linear(1.0, 0.5, steps=30)
    for clipping in ("automatic", "per-layer", "adaptive"):
        with pytest.raises(InvalidValue, match=rf"clipping = {clipping}: .*secure"):
            trainer(clipping, secure=True, seed=None, run_dir=run)
    with pytest.raises(InvalidValue, match=r"clipping = adaptive: .*schedule"):
        trainer("adaptive", clip_norm=falling, run_dir=run)
    with pytest.raises(InvalidValue, match=r"clipping = per-layer: .*compiled"):
        trainer("per-layer", compile=True, run_dir=run)
    assert not run.exists()


@pytest.mark.parametrize("clipping", ["automatic", "per-layer", "adaptive"])
def test_one_record_in_a_finished_run_moves_its_step_by_no_more(clipping):
    done = trainer(clipping, epochs=1, data=small_data(60)).fit()
    check = largest_change(done, records=4)
    assert check.p_value == 1.0, check
    assert np.isfinite(float(check.found.split()[0]))


@pytest.mark.parametrize("clipping", ["per-layer", "adaptive"])
def test_a_finished_runs_folder_is_replayed(clipping, tmp_path):
    trainer(clipping, epochs=2, run_dir=tmp_path / "run").fit().close()
    report = replay(RunFolder(tmp_path / "run"))
    assert not report.faults


@pytest.mark.parametrize("split", ["equal", "size"])
def test_sums_by_group_are_opacuss_per_layer_sums(split):
    """Opacus clips each parameter to a norm of its own; here groups of one parameter each."""
    rows = torch.tensor([ROWS["ordinary"], ROWS["long"], ROWS["zero"]])
    kind = GroupClipping(split)
    model = Halves()
    bounds = [group.share for group in groups_of(kind, model)]
    wrapped = GradSampleModule(model, loss_reduction="sum")
    theirs = DPPerLayerOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=bounds,
        expected_batch_size=1, loss_reduction="sum",
    )  # fmt: skip
    wrapped(rows.requires_grad_()).sum().backward()
    theirs.step()
    summed = -torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    assert float((step(rows.tolist(), kind, engine="opacus")[0] - summed).norm()) < 1e-4
