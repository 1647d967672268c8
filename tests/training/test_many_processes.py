"""One private run over several processes: one batch, one noise, one ledger, and one end."""

import json

import numpy as np
import pytest
import torch
from many_processes import run
from small_problem import make_trainer, small_model, weights
from torch import nn

from dpsgd_torch import ModelError
from dpsgd_torch.samplers.base import Batch
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.training.shares import share
from dpsgd_torch.training.streams import Streams

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


def test_models_wrapped_by_another_engine_are_refused_by_name():
    with pytest.raises(ModelError, match=r"DataParallel: .*pass the module inside it"):
        make_trainer(model=nn.DataParallel(small_model()))
