"""Noise by blocks: whoever draws which part of it, it is the same, and of the planned law."""

import math

import numpy as np
import pytest
import torch

from dpsgd_torch import GuaranteeBroken
from dpsgd_torch.noise.base import Release, StepPlan
from dpsgd_torch.noise.blocks import BLOCK, BLOCKS, Place
from dpsgd_torch.noise.independent import Energies
from dpsgd_torch.training.streams import Streams

SIZES = (3 * BLOCK + 17, 10, BLOCK, 1)


def release(step: int = 0, attempt: int = 0, **changes) -> Release:
    rng = Streams(5, "a contract").numpy("noise", step=step, attempt=attempt)
    plan = StepPlan(clip_norm=0.5, noise_multiplier=2.0)
    return Release(**{"plan": plan, "vectors": 3, "divisor": 1, "rng": rng, **changes})


def drawn(ranks: int, made: Release) -> np.ndarray:
    """What ranks draw between them, each its part of every parameter, put together."""
    found = [[] for _ in SIZES]
    for rank in range(ranks):
        cuts = [(rank * n // ranks, (rank + 1) * n // ranks, n) for n in SIZES]
        places = [Place(i, *cut) for i, cut in enumerate(cuts)]
        sums = [torch.zeros(p.stop - p.start, dtype=torch.float64) for p in places]
        like = [torch.zeros(1, dtype=torch.float64)] * len(SIZES)
        grads, energies = BLOCKS.released(sums, places, like, made, sum(SIZES))
        assert energies.of_noise == pytest.approx(sum(float(g @ g) for g in grads))
        for part, grad in zip(found, grads, strict=True):
            part.append(grad)
    return torch.cat([torch.cat(part) for part in found]).numpy()


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_any_number_of_ranks_draws_the_same(ranks):
    assert np.array_equal(drawn(ranks, release()), drawn(1, release()))


def test_threads_draw_the_same():
    before = torch.get_num_threads()
    alone = drawn(2, release())
    try:
        torch.set_num_threads(3)
        assert np.array_equal(drawn(2, release()), alone)
    finally:
        torch.set_num_threads(before)


def test_no_block_is_anothers_nor_another_steps_or_attempts():
    noise = drawn(1, release())
    blocks = [noise[at : at + 10] for at in (0, BLOCK, 2 * BLOCK, 3 * BLOCK, SIZES[0])]
    blocks += [drawn(1, release(step=1))[:10], drawn(1, release(attempt=1))[:10]]
    for i, one in enumerate(blocks):
        assert all(not np.array_equal(one, other) for other in blocks[:i])
    halves = noise[:BLOCK], noise[BLOCK : 2 * BLOCK]
    assert abs(np.corrcoef(*halves)[0, 1]) < 5 / math.sqrt(BLOCK)


def test_the_deviation_is_the_planned_one():
    noise = drawn(1, release())

    def fits(deviation: float) -> bool:
        error = deviation**2 * math.sqrt(2 / len(noise))
        return bool(abs(np.mean(noise**2) - deviation**2) < 5 * error)

    assert fits(1.0)
    assert not fits(2 / 3)
    assert not fits(3 / 2)


def test_other_noise_and_longer_sums_than_planned_are_refused():
    count = 10_000
    BLOCKS.refuse(Energies(1.0, float(count)), count, release(), count)
    for found in (
        Energies(1.0, count / 2),
        Energies(1.0, count * 4 / 9),
        Energies(1.0, count * 2.0),
        Energies(1.51**2, float(count)),
    ):
        with pytest.raises(GuaranteeBroken, match="nothing was released"):
            BLOCKS.refuse(found, count, release(), count)
