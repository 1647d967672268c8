"""Test and validation rows scored by all ranks, each its part: the numbers of one process."""

import json

import pytest
from many_processes import run

SCORES = """
import json, torch
from torch import nn
from torch.utils.data import TensorDataset
from dpsgd_torch import Validation
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.training.evaluation import evaluate
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.validation import HeldOut
from dpsgd_torch.training.world import ALONE
from small_problem import small_data, small_model
model, loss = small_model(), nn.CrossEntropyLoss(reduction="none")
right = lambda outputs, targets: (outputs.argmax(1) == targets).double()
whole = lambda outputs, targets: float(outputs.std())
class Counted:
    def reset(self):
        self.rows = 0
    def update(self, outputs, targets):
        self.rows += len(targets)
    def compute(self):
        return float(self.rows)
passed = []
model.register_forward_hook(lambda module, given, out: passed.append(len(out)))
def metrics(kind):
    given = {"right": right}
    if kind == "whole":
        given |= {"spread": whole, "counted": Counted()}
    return Metrics(loss, given)
for rows in (2007, 2):  # fewer than there are ranks, too
    x, y = small_data(rows, seed=5)
    loaded = FromDataset(TensorDataset(x, y), workers=1)
    from dpsgd_torch.data.checked import data_on
    for kind, data in (("own", (x, y)), ("own", loaded), ("whole", (x, y))):
        data = data_on("cpu", data, "test")
        expected = evaluate(model, metrics(kind), data, ALONE)
        scores = metrics(kind)
        scores.decide(model, data)
        passed.clear()
        found = evaluate(model, scores, data, world)
        print(json.dumps([kind, rows, sum(passed), expected, found]))
    held_out = HeldOut(Validation(tensors=(x, y)), loss, torch.device("cpu"))
    alone = held_out.scores(model, ALONE)
    passed.clear()
    mine = held_out.scores(model, world)
    print(json.dumps(["held out", rows, sum(passed), alone[::50].tolist(), mine[::50].tolist()]))
"""


def test_scores_over_ranks_are_those_of_one_process():
    told = [[json.loads(line) for line in out.splitlines()] for out in run(SCORES, 3)]
    for ranks in zip(*told, strict=True):
        kind, rows, _, expected, found = ranks[0]
        assert all(each[4] == found for each in ranks)
        assert found == pytest.approx(expected, rel=1e-6), kind
        taken = [each[2] for each in ranks]
        if kind == "whole":
            assert taken == [rows, 0, 0]
        else:
            assert sum(taken) == rows
            assert max(taken) - min(taken) <= 1


TORCHMETRICS = """
from torchmetrics import MeanMetric
class Mean(MeanMetric):
    def update(self, outputs, targets):
        super().update(targets.double())
"""


@pytest.mark.long
def test_a_torchmetrics_object_waits_for_no_other_rank():
    script = SCORES.replace("class Counted:", TORCHMETRICS + "class Counted:")
    script = script.replace("Counted()", "Mean()").replace("(2007, 2)", "(20,)")
    for ranks in zip(*(out.splitlines() for out in run(script, 2)), strict=True):
        kind, _, _, expected, found = json.loads(ranks[0])
        assert found == pytest.approx(expected, rel=1e-6), kind


ONCE = """
import json, torch
from dpsgd_torch import Validation
from dpsgd_torch.training import validation
from small_problem import make_trainer, small_data
normal, drawn = validation.normal, []
def noted(rng):
    drawn.append(1)
    return normal(rng)
validation.normal = noted
held_out = Validation(tensors=small_data(30, seed=7), noise_multiplier=5.0, bound=2.0)
trainer = make_trainer(world=world, validation=held_out).fit()
print(json.dumps([len(drawn), trainer.history.scores, trainer.ledger.rows()["charge"]]))
"""


def test_a_private_score_is_drawn_once_and_charged_once():
    (first, second) = (json.loads(out) for out in run(ONCE, 2))
    assert (first[0], second[0]) == (3, 0)  # an epoch each, by rank 0 alone
    assert first[1] == second[1]
    assert len(set(first[1])) == 3
    assert first[2] == second[2]
    assert len(first[2]) == 30 + 3
