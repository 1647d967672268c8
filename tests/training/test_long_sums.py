"""One record moves a long sum by its clip norm and no more, whatever order the others come in.

In float32 it moves them all: the base brings the sum to just below a power of two, the record takes
it across, where neighbours are twice as far apart, and every later pair, which cancels below,
rounds up there.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer, refuse_long_sums

RECORD = 63 / 64  # below the clip norm of 1, so that nothing is scaled
NOISE = 1e-3


def adversarial(power, pairs, padding=1):
    """Values whose running float32 sum stays below 2**power, but not with ``RECORD`` before them.

    ``padding``: each is followed by so many zeros, less one, so that it has a piece of its own.
    """
    top = 2.0**power
    base = np.full(int((top - 0.25) // RECORD), RECORD)
    base = np.append(base, top - 0.25 - base.sum())
    half = 2.0 ** (power - 24)  # of the distance of neighbours above 2**power
    later = np.tile([half * (1 + 2.0**-12), -half * (1 - 2.0**-12)], pairs)
    values = np.zeros((len(base) + len(later), padding))
    values[:, 0] = np.concatenate([base, later])
    return values.ravel(), len(base) * padding


def with_record(values, where):
    return np.insert(values, where, RECORD)


def in_float32(values):
    total = np.float32(0)
    for value in values.astype(np.float32):
        total += value
    return float(total)


def test_the_values_are_adversarial_a_float32_sum_moves_by_five_clips():
    values, where = adversarial(13, 4096)
    move = in_float32(with_record(values, where)) - in_float32(values)
    assert len(values) < 17_000
    assert move > 4.9


def summed(values, piece):
    """What PrivateOptimizer sums, in pieces, for gradients of one coordinate."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
    optimizer.begin(StepPlan(1.0, 1.0), np.random.default_rng(0))
    for rows in torch.from_numpy(values.astype(np.float32))[:, None].split(piece):
        parameter.grad_sample = rows
        optimizer.accumulate(Stored([parameter]))
    return float(optimizer.sums[0])


def test_sixteen_thousand_one_at_a_time_move_by_the_record_alone():
    values, where = adversarial(13, 4096)
    move = summed(with_record(values, where), 1) - summed(values, 1)
    assert move == pytest.approx(RECORD, abs=1e-6)


def test_half_a_million_in_pieces_of_128_move_by_the_record_alone():
    values, where = adversarial(11, 1024, padding=128)
    assert len(values) > 500_000
    move = summed(with_record(values, where), 128) - summed(values, 128)
    assert move == pytest.approx(RECORD, abs=1e-6)


@pytest.mark.filterwarnings("ignore:local, not covered by ε.* targets hold one value")
@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize("piece", [1])
def test_through_the_trainer_too(gradients, piece):
    values, where = adversarial(11, 1024)
    assert in_float32(with_record(values, where)) - in_float32(values) > 1.2
    sums = [released(v, gradients, piece) for v in (values, with_record(values, where))]
    assert sums[1] - sums[0] == pytest.approx(RECORD, abs=10 * NOISE)


def released(values, gradients, piece):
    """The sum that one step over all records releases, but for a little noise."""
    inputs = torch.from_numpy(values.astype(np.float32))[:, None]
    model, declared = nn.Linear(1, 1, bias=False), len(values) + 1
    nn.init.zeros_(model.weight)
    trainer = Trainer(
        model,
        lambda outputs, _: outputs[:, 0],  # whose gradient is the input
        (inputs, torch.zeros(len(inputs))),
        privacy=Privacy(noise_multiplier=NOISE, delta=1e-9, clip_norm=1.0, dataset_size=declared),
        batch_size=declared,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        physical_batch_size=piece,
        gradients=gradients,
    )
    trainer.fit()
    return -float(trainer.model.weight.detach().double()) * declared


def test_batches_that_could_round_to_more_than_is_charged_are_refused_with_a_size_that_is_not():
    refuse_long_sums(16_384, 1)
    refuse_long_sums(65_536, 128)
    with pytest.raises(InvalidValue, match=r"physical_batch_size = 1: .* raise it to 2048"):
        refuse_long_sums(1_000_000, 1)
    refuse_long_sums(1_000_000, 2048)
    with pytest.raises(InvalidValue, match="lower the batch size"):
        refuse_long_sums(10**9, 128)


def test_the_bound_of_a_sum_holds_for_vectors_that_round_badly():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, size=20_000)
    exact = math.fsum(values)
    running = 0.0
    for value in values:
        running += value
    assert abs(running - exact) <= len(values) * (1 + len(values)) * 2.0**-53
