"""What ranks exchange in a step: sums of any size in one order, a word that goes with a release."""

import json

from many_processes import begun, ended, run

SUMS = """
import json, torch
from dpsgd_torch.training import process_group
torch.manual_seed(world.rank)
given = [torch.randn(300, 7, dtype=torch.float64), torch.randn(5)]
found = []
for process_group._SMALL in (1 << 17, 0):  # by rank 0 alone, or in parts by all
    found.append([t.flatten().tolist() for t in world.summed([t.clone() for t in given])])
print(json.dumps(found))
"""

SHOWN = """
import json
from small_problem import make_trainer, small_model
model = small_model()
model[3].p = 0.0
seen = [at.epsilon for at in make_trainer(model=model, world=world).run()]
print(json.dumps([seen, world.waited > 0]))
"""

FAILS = """
import torch
from dpsgd_torch import RunError
def fails():
    raise RunError("noise: was not drawn")
tensor = torch.full((3,), float(world.rank))
try:
    world.hand_round_made(lambda: tensor.fill_(7.0), lambda: [tensor])
    print(tensor.tolist())
    with world.together():
        world.hand_round_made(fails, lambda: [tensor])
except RunError as error:
    print(error)
"""

OF_THE_DEFAULT_GROUP = 2  # gloo's threads that run what was asked: two a group
LEFT = """
import json
from pathlib import Path
from dpsgd_torch.training import process_group
def running():
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo_runloop" in name for name in names)
world.exchange("something", 1)
before = running()
process_group._close_all()
print(json.dumps([before, running()]))
"""


def test_few_values_and_many_are_added_in_one_order():
    few, many = json.loads(run(SUMS, 3)[0])
    assert few == many


def test_every_rank_shows_what_was_spent_and_that_it_waited():
    for out in run(SHOWN, 2):
        seen, waited = json.loads(out)
        assert waited
        assert all(value is not None and value > 0 for value in seen)


def test_what_rank_0_cannot_make_is_told_to_all_by_the_word_that_goes_along():
    for number, (status, out, err) in enumerate(ended(begun(FAILS, 2))):
        first, second = out.splitlines()
        assert first == "[7.0, 7.0, 7.0]"
        assert "noise: was not drawn" in second, err
        assert second.startswith("rank 0: "), number
        assert status == 0


def test_no_thread_of_gloo_outlives_what_was_exchanged():
    for out in run(LEFT, 2):
        before, after = json.loads(out)
        assert before > after >= 0
        assert after == OF_THE_DEFAULT_GROUP
