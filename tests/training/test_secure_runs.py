"""Secure runs: what is drawn is what is charged, to the last bit; a kept key pays once."""

import dataclasses
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from many_processes import run as run_processes
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from accountant import DiscreteGaussian, Gaussian, InvalidValue, NoCost, PoissonSampled, exact
from dpsgd_torch import Privacy, Private, RunError, Validation
from dpsgd_torch.app.flags import parse
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.statement import statement
from dpsgd_torch.audit.canaries import Canaries
from dpsgd_torch.audit.replayed import replay
from dpsgd_torch.errors import ConfigError, GuaranteeBroken
from dpsgd_torch.mechanisms.discrete import CELLS, PASS, noisy_score_sum, score_event
from dpsgd_torch.noise.base import Release, StepPlan
from dpsgd_torch.noise.grid import DIMENSION, GRID, sensitivity_in_cells
from dpsgd_torch.privacy.cross_check import opacus_epsilon
from dpsgd_torch.samplers.cyclic import cyclic
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.secure.generator import secure_bits, secure_generator
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.streams import Key

SAMPLER = PoissonSampler(dataset_size=60_000, batch_size=1024, steps=100)


def secure(**changes):
    return make_trainer(**{"seed": None, "secure": True, **changes})


def told_cells(vectors, clip_norm=0.7, key=b"k" * 32, noise_multiplier=2.0**-28):
    """What is released of a sum of vectors, in cells; the same noise for the same key."""
    total = torch.stack(vectors).sum(0)
    param = nn.Parameter(torch.zeros_like(total))
    plan = StepPlan(clip_norm, noise_multiplier)
    GRID.add([total], [param], Release(plan, len(vectors) + 1, 1, secure_generator(key)))
    return np.rint(param.grad.numpy() / (clip_norm / CELLS))


def test_every_step_is_charged_as_the_discrete_noise_that_is_drawn():
    trainer = secure().fit()
    [(event, count)] = trainer.ledger.events()
    assert (count, trainer.done) == (30, 30)
    assert isinstance(event, PoissonSampled)
    assert isinstance(event.event, DiscreteGaussian)
    assert event.event.deviation <= CELLS < event.event.deviation * (1 + 1e-12)
    assert event.event.sensitivity == sensitivity_in_cells(trainer.sampling) > CELLS
    spent, ordinary = trainer.privacy_spent(), make_trainer().fit().privacy_spent()
    assert ordinary.epsilon < spent.epsilon < 1.002 * ordinary.epsilon
    assert spent.agreement < 1e-9
    assert spent.noise == "grid"


def test_the_sensitivity_has_every_part():
    cells, most = sensitivity_in_cells(SAMPLER), SAMPLER.most()
    parts = CELLS + most * PASS * CELLS + 2 * most * 2.0**-53 * CELLS + math.sqrt(DIMENSION)
    assert parts <= cells < parts + 1
    twice = dataclasses.replace(SAMPLER, microbatch_size=2)
    assert sensitivity_in_cells(twice) - cells == pytest.approx(CELLS, rel=1e-9)


def test_no_record_moves_what_is_told_by_more_and_a_longer_one_does():
    rng, d, clip_norm = np.random.default_rng(4), 50_000, 0.7
    sampler = PoissonSampler(dataset_size=100, batch_size=20, steps=1)
    bound = sensitivity_in_cells(sampler)

    def vector(length):
        x = rng.standard_normal(d)
        return torch.from_numpy(x * (length / np.linalg.norm(x)))

    others = [vector(clip_norm * (1 - 1e-5)) for _ in range(19)]
    moved = [  # their rounding changes with the batch, all the same way
        x + PASS * clip_norm * torch.ones(d, dtype=torch.float64) / math.sqrt(d) for x in others
    ]
    for length, fits in ((1.0, True), (2.0, False)):
        mine = torch.ones(d, dtype=torch.float64) * (clip_norm * length / math.sqrt(d))
        change = told_cells([*moved, mine]) - told_cells(others)
        assert bool(np.linalg.norm(change) <= bound) is fits
    assert np.linalg.norm(change) > CELLS


def test_rounding_to_cells_alone_can_move_a_sum_by_the_root_of_the_dimension():
    d, cell = 10_000, 0.7 / CELLS
    below, above = (torch.full((d,), (0.5 + s) * cell, dtype=torch.float64) for s in (-1e-9, 1e-9))
    change = np.linalg.norm(told_cells([above]) - told_cells([below]))
    assert change == math.sqrt(d)  # which is in the sensitivity, of 2^30 coordinates


def test_what_is_released_is_a_whole_number_of_cells_and_noise_has_its_deviation():
    zeros = [torch.zeros(200_000, dtype=torch.float64)]
    param = nn.Parameter(torch.zeros(200_000, dtype=torch.float64))
    GRID.add(zeros, [param], Release(StepPlan(0.5, 1.3), 0, 1, secure_generator(bytes(32))))
    noise = param.grad.numpy() / (0.5 / CELLS)
    assert np.array_equal(noise, np.rint(noise))
    assert noise.std() / CELLS == pytest.approx(1.3, rel=0.01)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_noise_of_another_deviation_is_never_released(factor, monkeypatch):
    from dpsgd_torch.noise import grid

    honest = grid.discrete_gaussian
    monkeypatch.setattr(grid, "discrete_gaussian", lambda b, s, n: honest(b, s * factor, n))
    param = nn.Parameter(torch.zeros(5000))
    release = Release(StepPlan(0.5, 1.3), 0, 1, secure_generator(bytes(32)))
    with pytest.raises(GuaranteeBroken, match="noise energy"):
        GRID.add([torch.zeros(5000, dtype=torch.float64)], [param], release)


def test_a_sum_that_is_too_long_meets_no_noise():
    param = nn.Parameter(torch.zeros(10))
    for value in (1.0, math.nan, math.inf):
        total = torch.full((10,), value, dtype=torch.float64)
        release = Release(StepPlan(0.5, 1.3), 1, 1, secure_generator(bytes(32)))
        with pytest.raises(GuaranteeBroken, match="norm of the sum"):
            GRID.add([total], [param], release)
        assert param.grad is None
        assert np.array_equal(  # nothing was drawn
            secure_bits(release.rng).words(2), secure_bits(secure_generator(bytes(32))).words(2)
        )


def test_an_ordinary_generator_is_refused():
    param = nn.Parameter(torch.zeros(10))
    release = Release(StepPlan(0.5, 1.3), 1, 1, np.random.default_rng(0))
    with pytest.raises(GuaranteeBroken, match="pass secure=True"):
        GRID.add([torch.zeros(10, dtype=torch.float64)], [param], release)


def test_a_seed_and_noise_of_ones_own_are_refused_before_anything_is_begun(tmp_path):
    with pytest.raises(InvalidValue, match="from the operating system, not from a seed"):
        secure(seed=5, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="not from a seed"):
        PRESETS["digits"]().config.changed(secure=True, seed=5)
    with pytest.raises(ConfigError, match="without effect"):
        parse(["--preset", "digits", "--no-dp", "--secure"])
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_repeats_its_steps_from_the_kept_key_and_pays_once(tmp_path):
    cut = secure(run_dir=tmp_path / "one")
    for _ in itertools.islice(cut.run(), 12):
        pass
    cut.close()
    assert (tmp_path / "one/private/streams.json").stat().st_mode & 0o777 == 0o600
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    ends = []
    for name in ("one", "two"):
        again = secure(run_dir=tmp_path / name).resume().fit()
        assert len(again.ledger) == 30  # steps 7 … 11 were taken twice and paid once
        ends.append(weights(again.model))
        again.close()
    assert torch.equal(*ends)
    with pytest.raises(RunError, match="its privacy changed"):
        make_trainer(run_dir=tmp_path / "one").resume()
    (tmp_path / "two/private/streams.json").unlink()
    with pytest.raises(RunError, match=r"streams\.json"):
        secure(run_dir=tmp_path / "two").resume()


def test_secure_noise_on_parts_in_turn_pays_for_a_round_at_its_first_step(tmp_path):
    """A part at four times the rate, once in four steps; whoever paid for all of them had 8."""
    given = {"sampler": cyclic(4), "epochs": 0.8, "run_dir": tmp_path / "run", "seed": Key(4)}
    cut = secure(**given)
    [(event, paid), (nothing, free)] = cut.plan.events()
    assert (paid, nothing, free) == (2, NoCost(), 6)
    assert event == PoissonSampled(sampling_rate=0.4, event=event.event)
    assert event.event.sensitivity == sensitivity_in_cells(cut.sampling) > CELLS
    smooth = make_trainer(sampler=cyclic(4), epochs=0.8).fit().privacy_spent().epsilon
    for at in cut.run():
        if at.step == 6:
            break
    cut.close()
    spent = secure(**given).resume().fit()
    assert smooth < spent.privacy_spent().epsilon < 1.002 * smooth
    charged = [each for each, count in spent.ledger.events() for _ in range(count)]
    assert charged == [event, *[NoCost()] * 3] * 2
    spent.close()
    assert replay(RunFolder(tmp_path / "run")).faults == []


def test_two_secure_runs_share_nothing():
    one, other = (weights(secure(model=small_model()).fit().model) for _ in range(2))
    assert torch.isclose(one, other).sum() <= 8  # of 235, of which two runs share one by chance


def test_a_loop_of_ones_own_is_secure_too():
    model = small_model()
    private = Private(
        model, torch.optim.SGD(model.parameters(), lr=0.2), small_data(),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        batch_size=12, epochs=0.5, secure=True,
    )  # fmt: skip
    for batch in private:
        outputs = model(batch.inputs)
        private.backward(nn.functional.cross_entropy(outputs, batch.targets, reduction="none"))
        private.step()
    [(event, count)] = private.ledger.events()
    assert count == 5
    assert isinstance(event.event, DiscreteGaussian)


def test_validation_is_discrete_and_charged_as_that():
    rows = small_data(30, seed=7)
    held_out = Validation(tensors=rows, noise_multiplier=5.0, bound=2.0, size=30)
    trainer = secure(validation=held_out).fit()
    scores = [each for each in trainer.ledger.events() if isinstance(each[0], DiscreteGaussian)]
    assert scores == [(score_event(5.0, 30), 1)] * 3
    assert trainer.privacy_spent().epsilon > secure().fit().privacy_spent().epsilon
    with pytest.raises(InvalidValue, match="must be declared in secure mode"):
        secure(validation=dataclasses.replace(held_out, size=None))


def test_a_score_moves_the_told_sum_by_no_more_than_is_charged():
    rng = np.random.default_rng(2)
    scores, key = rng.random(500), b"s" * 32

    def told(values):
        return noisy_score_sum(values, 2.0**-20, secure_generator(key)) * CELLS

    moved = np.append(scores + PASS, 7.0)  # a record joins, and moves the others' last bits
    assert CELLS < abs(told(moved) - told(scores)) <= score_event(1.0, 250).sensitivity
    assert abs(told(np.append(moved, 1.0)) - told(scores)) > score_event(1.0, 250).sensitivity


def test_opacus_prices_the_continuous_noise_that_costs_no_less():
    step = GRID.charges(0, 1.3, SAMPLER)
    theirs, difference = opacus_epsilon([(step, 500)], 1e-5)
    assert difference < 1e-9
    assert exact().compose(step, 500).epsilon(1e-5).upper < theirs
    smooth = PoissonSampled(sampling_rate=SAMPLER.rate, event=Gaussian(noise_multiplier=1.3))
    assert theirs > opacus_epsilon([(smooth, 500)], 1e-5)[0]


def test_the_statement_says_what_was_done_and_the_two_lines_are_gone():
    trainer = secure().fit()
    ordinary = make_trainer().fit()
    words = [
        " ".join(
            statement(
                PRESETS["digits"]().config,
                each.privacy_spent(),
                plan=each.plan,
                claim="",
                stopped="",
                has_baseline=False,
            ).split()
        )
        for each in (trainer, ordinary)
    ]
    for line in ("PCG64DXSM", "what computers cannot draw exactly"):
        assert line not in words[0]
        assert line in words[1]
    for line in ("AES-256", "variation distance from the law that was charged is 0", "2^-30",
                 "1.074e+09 cells", "the output of AES-256 from", "2^-19"):  # fmt: skip
        assert line in words[0]
        assert line not in words[1]


def test_a_secure_run_is_replayed_from_its_key(tmp_path):
    secure(run_dir=tmp_path / "run", seed=Key(5)).fit().close()
    report = replay(RunFolder(tmp_path / "run"))
    assert report.faults == []
    kept = json.loads((tmp_path / "run/private/contract.json").read_text())
    assert kept["contract"]["privacy"]["noise"] == {"noise": "grid"}


def test_several_processes_draw_one_batch_and_one_noise():
    script = (
        "import json\nfrom small_problem import make_trainer, weights, small_model\n"
        "model = small_model()\nmodel[3].p = 0.0\n"
        "trainer = make_trainer(model=model, seed=None, secure=True, world=world, epochs=1).fit()\n"
        "print(json.dumps([weights(trainer.model).tolist(), len(trainer.ledger)]))\n"
    )
    first, second = (json.loads(out) for out in run_processes(script, 2))
    assert first == second
    assert first[1] == 10


def audited_from(key):
    """A run whose steps show canaries plainly, and who finds which of 200 are in."""
    plain = Privacy(noise_multiplier=0.4, delta=1e-3, clip_norm=0.5)
    trainer = secure(privacy=plain, batch_size=60, epochs=6, seed=key)
    canaries = Canaries(200).insert(trainer)
    return canaries, trainer.fit()


def test_a_secure_run_is_audited_by_canaries_in_it():
    """By a key of the test's own: of keys that are drawn 4 in a million would show a fault."""
    canaries, trainer = audited_from(Key(20261130))
    report, spent = canaries.report(trainer), trainer.privacy_spent()
    assert not report.faults
    assert report.correct > 0.75 * report.guesses
    assert 0 < report.best < spent.epsilon


def test_canaries_that_were_not_put_in_are_not_found_and_noise_that_was_not_drawn_ends_a_run(
    monkeypatch,
):
    from dpsgd_torch.audit import canaries as inside
    from dpsgd_torch.noise import grid

    with monkeypatch.context() as without:
        honest = inside.Diracs
        without.setattr(inside, "Diracs", lambda at, places, _: honest(at, places, 1e-9))
        canaries, trainer = audited_from(Key(20261130))
        report = canaries.report(trainer)
        assert report.correct < 0.75 * report.guesses
        assert any("a record moves the sum by the clip norm" in each for each in report.faults)
    monkeypatch.setattr(grid, "discrete_gaussian", lambda _, __, n: np.zeros(n, np.int64))
    with pytest.raises(GuaranteeBroken, match="noise energy"):
        audited_from(Key(20261130))
