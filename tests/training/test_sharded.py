"""One private run in parts over processes: what one process gives, and the laws it rests on."""

import json
import math

import numpy as np
import pytest
import torch
from many_processes import begun, ended, run
from sharded_runs import RUNS, adamw, made
from small_problem import small_data, small_model
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import EarlyStopping, ModelError
from dpsgd_torch.audit import replay
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.feed import Feed
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.world import ALONE, World


def fits(values: np.ndarray, deviation: float) -> bool:
    """Whether the mean square is within 5 of its standard errors of the deviation's square."""
    error = deviation**2 * math.sqrt(2 / len(values))
    return bool(abs(np.mean(values**2) - deviation**2) < 5 * error)


@pytest.mark.filterwarnings("ignore:epochs. how long to train")
@pytest.mark.parametrize(
    ("size", "names"), [(2, list(RUNS)), (3, ["by_adamw", "mostly_nobody", "tied"])]
)
def test_every_kind_of_run_gives_what_one_process_gives(size, names):
    script = """
import json, warnings
from sharded_runs import RUNS
warnings.simplefilter("ignore")
for name in NAMES:
    print(json.dumps([name, *RUNS[name](world)]))
"""
    script = script.replace("NAMES", str(names))
    outs = run(script, size, fresh=size == 2)
    told = [[json.loads(line) for line in out.splitlines()] for out in outs]
    assert all(other == told[0] for other in told)
    for name, found, charges, epochs in told[0]:
        expected, ledger, alone = RUNS[name](ALONE)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), name
        assert charges == ledger, name
        for mine, theirs in zip(alone, epochs, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-5), name


NOISE = """
import json, math, torch
from torch import nn
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise import blocks
from dpsgd_torch.training.shards import Shards
PLANT
torch.manual_seed(0)
model = nn.Linear(10_000, 2)
before = model.weight.detach().clone()
data = torch.zeros(40, 10_000), torch.zeros(40, 2)
def nothing(outputs, targets):
    return (outputs * 0).sum(1)
Trainer(model, nothing, data, privacy=Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5),
        batch_size=10, epochs=0.25, seed=3, world=world, physical_batch_size=8, shard=True,
        optimizer=lambda p: torch.optim.SGD(p, lr=10.0)).fit()
print(json.dumps((before - model.weight.detach()).flatten().tolist()))
"""


@pytest.mark.parametrize("size", [2, 3])
def test_noise_in_parts_has_the_planned_deviation(size):
    first, *others = [np.array(json.loads(out)) for out in run(NOISE.replace("PLANT", ""), size)]
    assert all(np.array_equal(first, other) for other in others)
    assert fits(first, 1.0)
    assert not fits(first, 2 / 3)
    assert not fits(first, 3 / 2)
    assert not fits(first / math.sqrt(size), 1.0)
    assert not fits(first * math.sqrt(size), 1.0)
    halves = np.array_split(first.reshape(2, -1), 2)
    assert abs(np.corrcoef(*(half.flatten() for half in halves))[0, 1]) < 5 / math.sqrt(10_000)


@pytest.mark.parametrize(
    "plant",
    [
        """
fill = blocks.fill_normal
def fewer(rng, out):
    fill(rng, out)
    out /= math.sqrt(2) if world.rank else 1.0
blocks.fill_normal = fewer
""",
        """
add = Shards.add
def twice(self, totals):  # a noise of its own, before that of whoever holds the part
    add(self, (total + torch.randn_like(total) for total in totals))
Shards.add = twice
""",
        """
fill = blocks.fill_normal
def twice(rng, out):
    fill(rng, out)
    out += out.copy()
blocks.fill_normal = twice
""",
    ],
    ids=["σ/√2 on one rank", "a second draw on another rank", "one draw twice"],
)
def test_planted_noise_is_caught_on_every_rank(plant):
    found = ended(begun(NOISE.replace("PLANT", plant), 2))
    assert [status for status, _, _ in found] == [2, 2]
    assert any("nothing was released" in err for _, _, err in found)


SUMS = """
import json, torch
from dpsgd_torch.noise import blocks
from dpsgd_torch.training.sums import BLOCKS
from sharded_runs import made
released = blocks.BlockGaussian.released
def seen(self, sums, *rest):
    print(json.dumps([total.tolist() for total in sums]))
    return released(self, sums, *rest)
blocks.BlockGaussian.released = seen
made(world, epochs=0.2).fit()
"""


def test_each_example_is_clipped_over_all_layers_as_float64_autograd_says():
    sums = [[json.loads(line) for line in out.splitlines()] for out in run(SUMS, 2)]
    trainer = made(ALONE, epochs=0.2)
    trainer.open()
    rows = Feed(trainer.state).draw(0).rows
    inputs, targets = small_data()
    model = small_model().double()
    model[3].p = 0.0
    expected, clipped = np.zeros(sum(p.numel() for p in model.parameters())), 0
    clip = 0.5 * (1 - 2.0**-9)  # what the margin leaves
    for row in rows:
        losses = nn.functional.cross_entropy(model(inputs[row][None].double()), targets[row][None])
        vector = torch.cat([g.flatten() for g in torch.autograd.grad(losses, model.parameters())])
        clipped += bool(vector.norm() > clip)
        expected += (vector * min(1.0, clip / float(vector.norm()))).numpy()
    assert clipped > 0
    parts = zip(sums[0][0], sums[1][0], strict=True)
    found = np.concatenate([np.concatenate(pair) for pair in parts])
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


COMMAND = """
from dpsgd_torch.shell import in_one_line
import json, os, signal
from sharded_runs import adamw, made, told
def story():
    trainer = made(world, run_dir=RUN, optimizer=adamw)
    if RESUMED:
        trainer.resume()
    for at in trainer.run():
        if (world.rank, at.step) == WHERE:
            os.kill(os.getpid(), signal.SIGKILL)
    rows = [list(row[:4]) for row in trainer.ledger.rows()["charge"]]
    print(json.dumps([told(trainer)[0], rows, trainer.privacy_spent().epsilon]))
sys.exit(in_one_line(story, silent=lambda: not world.speaks))
"""


def command(folder, where=(-1, 0), *, resumed=False):
    script = COMMAND.replace("RUN", repr(str(folder))).replace("RESUMED", str(resumed))
    return script.replace("WHERE", repr(where))


def attempts(rows, number):
    """The steps that an attempt was charged for."""
    return {step for _, _, step, attempt in rows if attempt == number}


def test_a_killed_rank_ends_all_and_as_many_go_on_bit_for_bit(tmp_path):
    undisturbed = json.loads(run(command(tmp_path / "other"), 2)[0])
    (status, _, line), (killed, _, _) = ended(begun(command(tmp_path / "run", (1, 17)), 2))
    assert (status, killed) == (2, -9)
    assert line.startswith("error: rank 1: is gone"), line
    assert line.count("\n") == 1
    outs = [json.loads(out) for out in run(command(tmp_path / "run", resumed=True), 2)]
    assert outs[0] == outs[1] == undisturbed  # each step repeated, and paid once
    assert len(undisturbed[1]) == 30


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_reads_the_checkpoint_and_pays_for_what_it_repeats(tmp_path, size):
    folder = tmp_path / "run"
    ended(begun(command(folder, (0, 17)), 2))
    found, rows, spent = json.loads(run(command(folder, resumed=True), size)[0])
    assert attempts(rows, 1) == set(range(14, 30))
    assert attempts(rows, 0) >= set(range(17))
    undisturbed = made(ALONE, optimizer=adamw).fit()
    assert spent > undisturbed.privacy_spent().epsilon
    assert np.isfinite(found).all()


def test_the_audit_draws_it_again(tmp_path):
    made(ALONE, run_dir=tmp_path / "run").fit().close()
    report = replay(RunFolder(tmp_path / "run"))
    assert all(check.passed for check in report.checks), report.checks


def test_a_pass_that_writes_to_a_parameter_releases_nothing():
    script = """
from sharded_runs import made
trainer = made(world)
def write(layer, inputs, outputs):
    if not layer.weight.requires_grad:
        return
    layer.weight.data.add_(1.0)
try:
    for at in trainer.run():
        if at.step == 3:
            trainer.model[4].register_forward_hook(write)
except Exception as error:
    print(type(error).__name__, at.step, error)
"""
    for out in run(script, 2):
        assert out.startswith("GuaranteeBroken 3 ")
        assert "was written to in a pass" in out


def test_what_cannot_be_sharded_is_refused_by_name():
    with pytest.raises(InvalidValue, match=r"^shard = True: is for private runs"):
        made(ALONE, privacy=None)
    with pytest.raises(InvalidValue, match=r"^keep_best = True: needs the model whole"):
        made(ALONE, early_stopping=EarlyStopping(keep_best=True))
    model = small_model()
    whole = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ModelError, match=r"^optimizer LBFGS: must act element by element"):
        Shards(model, whole, World())
    model[4].weight = nn.Parameter(model[4].weight.detach().t().contiguous().t())
    with pytest.raises(ModelError, match=r"^parameter 4\.weight: .*is not contiguous"):
        Shards(model, adamw(model.parameters()), World())


def test_a_model_that_torch_has_sharded_is_refused_before_anything_is_charged():
    script = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from sharded_runs import made
from small_problem import small_model
mesh = init_device_mesh("cpu", (2,))
for wrap in (lambda m: fully_shard(m, mesh=mesh),
             lambda m: parallelize_module(m, mesh, {"4": ColwiseParallel()})):
    model = small_model()
    wrap(model)
    try:
        made(world, model=model)
    except Exception as error:
        print(type(error).__name__, error)
"""
    for out in run(script, 2):
        first, second = out.splitlines()
        assert first.startswith("ModelError parameter 0.weight = DTensor")
        assert second.startswith("ModelError parameter 4.weight = DTensor")
        assert all("with shard=True, and run under torchrun" in line for line in (first, second))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("model[4].weight.data.mul_(1 + world.rank)", "weights"),
        ("model[3].p = 0.1 * world.rank", "model"),
    ],
)
def test_ranks_of_other_weights_are_told_so_by_rank(change, what):
    script = f"""
from sharded_runs import made
from small_problem import small_model
model = small_model()
{change}
try:
    made(world, model=model)
except Exception as error:
    print(type(error).__name__, error)
"""
    for out in run(script, 2):
        assert out.startswith(f"RunError rank 1: its {what} differs from rank 0's")


def test_what_reads_parameters_behind_torchs_back_is_refused_before_anything_is_charged():
    script = """
import torch
from torch import nn
from sharded_runs import made
torch.manual_seed(0)
class Behind(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(36, 3)
    def forward(self, x):
        scale = 1 + sum(self.inner.bias.untyped_storage().tolist())  # bytes, by no operation
        return self.inner(x.flatten(1)) / scale
try:
    made(world, model=Behind())
except Exception as error:
    print(type(error).__name__, error)
"""
    for out in run(script, 2):
        assert out.startswith("ModelError model: ")
        assert "leave shard out" in out
