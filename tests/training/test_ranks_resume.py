"""A run of several processes that was killed goes on with any number of them."""

import json
import sqlite3

import pytest
from many_processes import begun, ended, run

COMMAND = """
import os, signal
from dpsgd_torch.train import main
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
release = PrivateOptimizer.release
def killed(self):
    if (world.rank, self.plan.step) == WHERE:
        os.kill(os.getpid(), signal.SIGKILL)
    release(self)
PrivateOptimizer.release = killed
sys.exit(main(WORDS))
"""
LOOP = """
import os, signal, torch
from torch import nn
from dpsgd_torch import Privacy, Private
from small_problem import small_data, small_model
model = small_model()
model[3].p = 0.0
private = Private(
    model, torch.optim.SGD(model.parameters(), lr=0.2), small_data(),
    privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5), batch_size=12, epochs=3,
    seed=1, physical_batch_size=5, checkpoint_every=7, world=world, run_dir=RUN)
if RESUMED:
    private.resume()
for batch in private:
    if (world.rank, private.done) == WHERE and not batch.rehearsal:
        os.kill(os.getpid(), signal.SIGKILL)
    losses = nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
    private.backward(losses)
    private.step()
private.close()
"""


def attempts(folder) -> dict[int, list[int]]:
    """The attempts that each step was charged in."""
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        rows = ledger.execute("select step, attempt from charge order by step, attempt").fetchall()
    found: dict[int, list[int]] = {}
    for step, attempt in rows:
        found.setdefault(step, []).append(attempt)
    return found


def loop(folder, where=(-1, 0), *, resumed=False):
    script = LOOP.replace("RUN", repr(str(folder))).replace("RESUMED", str(resumed))
    return script.replace("WHERE", repr(where))


def command(words, where=(-1, 0)):
    return COMMAND.replace("WHERE", repr(where)).replace("WORDS", repr(words))


@pytest.mark.parametrize("size", [1, 3])
def test_an_own_loop_goes_on_with_another_number_and_pays_for_what_it_repeats(tmp_path, size):
    folder = tmp_path / "run"
    (status, _, line), (killed, _, _) = ended(begun(loop(folder, (1, 17)), 2))
    assert (status, killed) == (2, -9), line
    run(loop(folder, resumed=True), size)
    found = attempts(folder)
    assert sorted(found) == list(range(30))
    assert all(found[step] == [0, 1] for step in range(14, 17))  # since the last checkpoint
    assert all(found[step] == [1] for step in range(18, 30))


def test_an_own_loop_goes_on_with_as_many_and_pays_nothing_twice(tmp_path):
    folder = tmp_path / "run"
    ended(begun(loop(folder, (1, 17)), 2))
    run(loop(folder, resumed=True), 2)
    assert attempts(folder) == {step: [0] for step in range(30)}


def test_the_command_line_goes_on_with_another_number(tmp_path):
    folder = tmp_path / "run"
    words = ["--preset", "digits", "--epochs", "1", "--seed", "3", "--out", str(folder)]
    words += ["--checkpoint-every", "4"]
    (first, _, line), (killed, _, _) = ended(begun(command(words, (1, 6)), 2))
    assert (first, killed) == (2, -9), line
    assert line.startswith("error: "), line
    assert "rank 1: is gone" in line
    run(command(["--resume", str(folder)]), 1)
    found = attempts(folder)
    assert found[4] == found[5] == [0, 1]
    assert found[max(found)] == [1]
    spent = json.loads((folder / "privacy.json").read_text())
    assert spent["epsilon"] > 0
