"""Whatever fails on one of several processes ends all, at once, by one line that names it."""

import json
import sqlite3

import pytest
from many_processes import begun, ended

SCRIPT = """
import atexit, json, os, signal, time, torch
from torch import nn
from dpsgd_torch import EarlyStopping, Privacy, Private, Validation
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.training.callbacks import Callback
from small_problem import make_trainer, small_data, small_model
WHERE, RUN = None, "FOLDER"
atexit.register(lambda: print(json.dumps(["ended", time.time()]), flush=True))
def fail(how):
    print(json.dumps(["failed", time.time()]), flush=True)
    how()
def mine():
    raise ValueError("a fault of mine")
"""
ON_RANK = {
    "callback": """
class Fails(Callback):
    def on_step(self, trainer, progress):
        if (world.rank, progress.step) == (1, 3):
            fail(mine)
make_trainer(world=world, callbacks=[Fails()], run_dir=RUN).fit()
""",
    "body of run": """
for at in make_trainer(world=world, run_dir=RUN).run():
    if (world.rank, at.step) == (1, 3):
        fail(mine)
""",
    "body of an own loop": """
model = small_model()
private = Private(
    model, torch.optim.SGD(model.parameters(), lr=0.2), small_data(),
    privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5), batch_size=12, epochs=3,
    seed=1, physical_batch_size=5, world=world, run_dir=RUN)
for batch in private:
    if (world.rank, private.done) == (1, 3) and not batch.rehearsal:
        fail(mine)
    losses = nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
    private.backward(losses)
    private.step()
""",
    "row in a worker": """
class Rows(torch.utils.data.Dataset):
    x, y = small_data()
    taken = 0
    def __len__(self):
        return 120
    def __getitem__(self, row):
        self.taken += 1
        if world.rank and self.taken > 400:  # the pass before the first charge is over
            fail(mine)
        return self.x[row], self.y[row]
make_trainer(world=world, run_dir=RUN, data=FromDataset(Rows(), workers=1), epochs=30).fit()
""",
    "validation": """
def score(outputs, targets):
    if world.rank and made and made[0].done > 3:
        fail(mine)
    return nn.functional.cross_entropy(outputs, targets, reduction="none")
held_out = Validation(tensors=small_data(30), score=score, noise_multiplier=5.0)
made = []
made.append(make_trainer(world=world, run_dir=RUN, validation=held_out))
made[0].fit()
""",
    "Ctrl-C": """
for at in make_trainer(world=world, run_dir=RUN, epochs=300).run():
    if (world.rank, at.step) == (1, 3):
        fail(lambda: os.kill(os.getpid(), signal.SIGINT))
""",
    "SIGTERM": """
for at in make_trainer(world=world, run_dir=RUN, epochs=300).run():
    if (world.rank, at.step) == (1, 3):
        fail(lambda: os.kill(os.getpid(), signal.SIGTERM))
""",
}
SAYS = {
    "callback": "error: rank 1: callback Fails: on_step failed after step 3 (ValueError: a fault",
    "body of run": "error: rank 1: ValueError: a fault of mine",
    "body of an own loop": "error: step 3: rank 1: ValueError: a fault of mine; the step's charge",
    "row in a worker": "error: rank 1: ",
    "validation": "error: rank 1: ",
    "Ctrl-C": "error: rank 1: interrupted",
    "SIGTERM": "error: rank 1: told to stop by SIGTERM",
}
SOON = 30.0  # seconds, on a machine with much else to do; an exchange would wait for 90


def charged(folder) -> list[int]:
    """The steps that the ledger has."""
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        return [step for (step,) in ledger.execute("select step from charge order by step")]


@pytest.mark.parametrize("what", ON_RANK)
def test_a_failure_on_one_rank_ends_all_at_once(what, tmp_path):
    script = SCRIPT.replace("FOLDER", str(tmp_path / "run")) + ON_RANK[what]
    (first, told, line), (second, other, err) = ended(begun(script, 2, timeout=90.0))
    assert (first, second) == (2, 2), (line, err)
    assert line.startswith(SAYS[what]), line
    assert line.count("\n") == 1
    assert ("Traceback" in err) == what.startswith("body")  # where the user's own code raised
    times = dict(json.loads(each) for each in (told + other).splitlines() if "failed" in each)
    times |= dict(json.loads(each) for each in told.splitlines())
    assert times["ended"] - times["failed"] < SOON
    steps = charged(tmp_path / "run")
    assert steps[:3] == [0, 1, 2]
    assert steps == list(range(len(steps)))
    if "loop" in what or what in ("body of run", "callback"):
        assert len(steps) <= 4


FULL = """
import resource
trainer = make_trainer(world=world, run_dir=RUN, epochs=30)
for at in trainer.run():
    if world.is_first and at.step == 3:
        at_most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, at_most))
"""


def test_a_disk_that_is_full_ends_all(tmp_path):
    script = SCRIPT.replace("FOLDER", str(tmp_path / "run")) + FULL
    (first, _, line), (second, _, err) = ended(begun(script, 2, timeout=90.0))
    assert (first, second) == (2, 2), (line, err)
    assert line.startswith("error: rank 0: ") or "ledger" in line, line
    assert line.count("\n") == 1
    assert not err
