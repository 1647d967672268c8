"""One private run over several processes: one batch, one noise, one ledger, and one end."""

import json
import math

import numpy as np
import pytest
import torch
from many_processes import begun, ended, run
from small_problem import make_trainer, small_model, weights
from small_runs import RUNS
from torch import nn

from dpsgd_torch import ModelError
from dpsgd_torch.samplers.base import Batch
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.training.shares import share
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.world import ALONE

SMALL = """
import json, torch
from torch import nn
from small_problem import make_trainer, small_data, small_model, weights
torch.manual_seed(0)
def trainer(**changes):
    model = small_model()
    model[3].p = 0.0  # dropout draws by rank
    return make_trainer(**{"model": model, "world": world, **changes})
def told(trained):
    spent = trained.privacy_spent().epsilon if trained.plan else None
    rows = [] if spent is None else trained.ledger.rows()["charge"]
    print(json.dumps([weights(trained.model).tolist(), spent, rows, trained.history.to_json()]))
"""
FIT = SMALL + "told(trainer().fit())\n"


@pytest.fixture(scope="module")
def alone():
    """What one process trains, with the same seed."""
    model = small_model()
    model[3].p = 0.0
    return make_trainer(model=model).fit()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("units", [False, True])
def test_shares_are_the_batch_that_one_process_draws(size, units):
    sampler = PoissonSampler(dataset_size=300, batch_size=40, steps=3)
    for step in range(3):
        batch = sampler.draw(lambda name, n=step: Streams(5).numpy(name, step=n), step, 300, None)
        if units:
            batch = Batch(batch.rows, batch.slots % 7, np.ones(len(batch.rows), np.float32))
        shares = [share(batch, rank, size) for rank in range(size)]
        whole = sorted(zip(batch.slots, batch.rows, strict=True))
        dealt = [pair for s in shares for pair in zip(s.slots, s.rows, strict=True)]
        assert sorted(dealt) == whole
        owners = [set(s.slots.tolist()) for s in shares]
        assert sum(map(len, owners)) == len(set(batch.slots.tolist()))  # none is divided
        if not units:
            assert max(len(s.rows) for s in shares) - min(len(s.rows) for s in shares) <= 1


def test_a_batch_of_nobody_and_one_of_few_are_shared():
    nobody = Batch(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert [len(share(nobody, rank, 3).rows) for rank in range(3)] == [0, 0, 0]
    one = Batch(np.array([4]), np.array([0]))
    assert sum(len(share(one, rank, 3).rows) for rank in range(3)) == 1
    big = Batch(np.arange(6), np.zeros(6, np.int64))
    assert sorted(len(share(big, rank, 2).rows) for rank in range(2)) == [0, 6]


@pytest.mark.parametrize("size", [2, 3])
def test_the_answer_and_the_ledger_are_those_of_one_process(size, alone):
    outs = [json.loads(out) for out in run(FIT, size)]
    expected = weights(alone.model)
    for found, spent, rows, history in outs:
        assert torch.tensor(found) == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert spent == alone.privacy_spent().epsilon
        assert [row[:5] for row in rows] == [list(r[:5]) for r in alone.ledger.rows()["charge"]]
        assert history["epochs"] == outs[0][3]["epochs"]
    mine, theirs = alone.history.private, outs[0][3]["private"]
    assert [r["examples_seen"] for r in mine] == [r["examples_seen"] for r in theirs]
    assert [r["norm_counts"] for r in mine] == [r["norm_counts"] for r in theirs]
    assert all(found == outs[0][0] for found, *_ in outs)


def test_a_rank_that_clipped_to_another_norm_would_be_seen(alone):
    plant = """
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
begin = PrivateOptimizer.begin
def wider(self, plan, rng):
    begin(self, plan, rng)
    self.clip_norm *= 1 + world.rank
PrivateOptimizer.begin = wider
"""
    found = json.loads(run(plant + FIT, 2)[0])[0]
    assert torch.tensor(found) != pytest.approx(weights(alone.model), rel=1e-5, abs=1e-7)


def test_models_wrapped_by_another_engine_are_refused_by_name():
    with pytest.raises(ModelError, match=r"DataParallel: .*pass the module inside it"):
        make_trainer(model=nn.DataParallel(small_model()))


def test_every_kind_of_run_gives_what_one_process_gives():
    script = """
import json
from small_runs import RUNS
for name, trained in RUNS.items():
    print(json.dumps([name, *trained(world)]))
"""
    outs = run(script, 2, fresh=True)
    told = [[json.loads(line) for line in out.splitlines()] for out in outs]
    assert told[0] == told[1]
    for name, found, history in told[0]:
        expected, alone = RUNS[name](ALONE)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), name
        assert len(history["epochs"]) == len(alone["epochs"])
        for mine, theirs in zip(alone["epochs"], history["epochs"], strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-5), name


NOISE = """
import json, math, torch
from torch import nn
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
PLANT
torch.manual_seed(0)
model = nn.Linear(10_000, 2)
before = model.weight.detach().clone()
data = torch.zeros(40, 10_000), torch.zeros(40, 2)
def nothing(outputs, targets):
    return (outputs * 0).sum(1)
Trainer(model, nothing, data, privacy=Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5),
        batch_size=10, epochs=0.25, seed=3, world=world, physical_batch_size=8,
        optimizer=lambda p: torch.optim.SGD(p, lr=10.0)).fit()
print(json.dumps((before - model.weight.detach()).flatten().tolist()))
"""


def fits(values: np.ndarray, deviation: float) -> bool:
    """Whether the mean square is within 5 of its standard errors of the deviation's square."""
    error = deviation**2 * math.sqrt(2 / len(values))
    return bool(abs(np.mean(values**2) - deviation**2) < 5 * error)


@pytest.mark.parametrize("size", [2, 3])
def test_noise_over_ranks_has_the_planned_deviation(size):
    first, *others = [np.array(json.loads(out)) for out in run(NOISE.replace("PLANT", ""), size)]
    assert all(np.array_equal(first, other) for other in others)
    assert fits(first, 1.0)
    assert not fits(first, 2 / 3)
    assert not fits(first, 3 / 2)
    assert not fits(first / math.sqrt(size), 1.0)
    assert not fits(first * math.sqrt(size), 1.0)


@pytest.mark.parametrize(
    "plant",
    [
        """
add = IndependentGaussian.add
def fewer(self, sums, params, release):
    import dataclasses
    plan, less = release.plan, release.plan.noise_multiplier / math.sqrt(2)
    state = torch.random.get_rng_state()
    drawn = release.rng.standard_normal
    class Less:
        def standard_normal(self, out): drawn(out=out); out /= math.sqrt(2)
    add(self, sums, params, dataclasses.replace(release, rng=Less()))
IndependentGaussian.add = fewer
""",
        """
release = PrivateOptimizer.add_noise
def twice(self):
    if not world.is_first:  # a noise of its own
        for total in self.sums:
            total += torch.randn_like(total)
    release(self)
PrivateOptimizer.add_noise = twice
""",
    ],
    ids=["σ/√2", "a second draw on another rank"],
)
def test_planted_noise_is_caught_on_every_rank(plant):
    found = ended(begun(NOISE.replace("PLANT", plant), 2))
    for status, out, _ in found:
        assert status == 2
        assert not out  # nobody came to tell what moved
    assert "nothing was released" in found[0][2]  # told once, by the rank that speaks


def test_ranks_that_disagree_are_refused_by_what_differs():
    script = (
        SMALL
        + """
from dpsgd_torch import TrainingError
def other(rank_1, rank_0=None):
    return rank_1 if world.rank else rank_0
tries = {
    "data": lambda: dict(data=small_data(seed=other(5, 1))),
    "seed": lambda: dict(seed=other(5, 11)),
    "weights": lambda: dict(model=small_model(other(1, 0))),
    "sampling": lambda: dict(epochs=other(2, 3)),
    "batch": lambda: dict(batch_size=other(200, 12)),
}
for name, changes in tries.items():
    made = None
    try:
        made = trainer(**changes())
        made.fit()
    except Exception as error:
        charged = made is not None and made.state.charges.has_ledger
        print(json.dumps([name, type(error).__name__, str(error), charged]))
"""
    )
    told = [[json.loads(line) for line in out.splitlines()] for out in run(script, 2)]
    for rank in (0, 1):
        assert [name for name, *_ in told[rank]] == ["data", "seed", "weights", "sampling", "batch"]
        for name, kind, message, charged in told[rank]:
            assert message.startswith("rank 1: "), message
            assert not charged
            assert name in message
            assert kind == ("InvalidValue" if name == "batch" else "RunError")


COMMAND = (
    SMALL
    + """
from dpsgd_torch.shell import in_one_line
import os, signal, time
def story():
    made = trainer(run_dir=RUN)
    if RESUMED:
        made.resume()
    with world.stopping_together():
        for at in made.run():
            if (world.rank, at.step) == WHERE:
                HOW
    told(made)
sys.exit(in_one_line(story, silent=lambda: not world.speaks))
"""
)


def command(folder, where=(-1, 0), how="pass", *, resumed=False):
    script = COMMAND.replace("RUN", repr(str(folder))).replace("RESUMED", str(resumed))
    return script.replace("WHERE", repr(where)).replace("HOW", how)


def test_a_killed_rank_ends_all_in_one_line_and_any_number_goes_on(tmp_path, alone):
    folder = tmp_path / "run"
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    (status, _, line), (killed, _, _) = ended(begun(command(folder, (1, 17), kill), 2))
    assert (status, killed) == (2, -9)
    assert line.startswith("error: rank 1: is gone"), line
    assert line.count("\n") == 1
    outs = [json.loads(out) for out in run(command(folder, resumed=True), 2)]
    undisturbed = [json.loads(out) for out in run(FIT, 2)]
    assert outs[0][:2] == undisturbed[0][:2]  # as many: each step repeated, and paid once


def test_another_number_of_ranks_pays_for_what_it_repeats(tmp_path, alone):
    folder = tmp_path / "run"
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    ended(begun(command(folder, (0, 17), kill), 2))
    _found, spent, rows, history = json.loads(run(command(folder, resumed=True), 3)[0])
    assert len(history["epochs"]) == 3
    attempts = {(row[2], row[3]) for row in rows}  # step, attempt
    assert {step for step, attempt in attempts if attempt == 1} == set(range(14, 30))
    assert {step for step, attempt in attempts if attempt == 0} >= set(range(17))
    assert spent > alone.privacy_spent().epsilon


def test_a_rank_that_hangs_is_named_once_its_time_is_over(tmp_path):
    script = command(tmp_path / "run", (1, 5), "time.sleep(12)")
    (first, _, line), (second, _, _) = ended(begun(script, 2, timeout=3.0))
    assert (first, second) == (2, 2)  # the second once it wakes up: nobody is there any more
    assert line.startswith("error: rank 1: is gone, or said nothing for 3 s")


def test_a_rank_told_to_stop_ends_all(tmp_path):
    script = command(tmp_path / "run", (1, 5), "os.kill(os.getpid(), signal.SIGTERM)")
    (first, _, line), (second, _, other) = ended(begun(script, 2))
    assert (first, second) == (2, 2)
    assert line == "error: rank 1: told to stop by SIGTERM\n"
    assert not other
