"""The sampler is the one that is accounted for: Poisson, and nothing that merely looks like it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpsgd_torch.training.sampling import assign_slots, physical_batches, poisson_sample

RECORDS, RATE, DRAWS = 200, 0.1, 3000
FALSE_ALARM = 1e-6


def looks_poisson(draws: list[np.ndarray], records: int, rate: float) -> bool:
    """Sizes spread as a binomial's, and every record in its share of draws, without repeats."""
    sizes = np.array([len(batch) for batch in draws])
    expected = stats.binom(records, rate)
    spread = sizes.var(ddof=1) * (len(draws) - 1) / expected.var()
    tail = stats.chi2(len(draws) - 1)
    mean_z = (sizes.mean() - expected.mean()) / (expected.std() / len(draws) ** 0.5)
    counts = np.bincount(np.concatenate(draws), minlength=records)
    share = stats.chisquare(
        np.stack([counts, len(draws) - counts]),
        np.array([[len(draws) * rate], [len(draws) * (1 - rate)]]).repeat(records, axis=1),
        axis=None,
        ddof=records - 1,
        sum_check=False,
    )
    return bool(
        tail.ppf(FALSE_ALARM) < spread < tail.isf(FALSE_ALARM)
        and abs(mean_z) < stats.norm.isf(FALSE_ALARM)
        and share.pvalue > FALSE_ALARM
        and all(len(np.unique(batch)) == len(batch) for batch in draws)
    )


def test_poisson_sampling_has_the_law_it_states():
    rng = np.random.default_rng(0)
    draws = [poisson_sample(rng, RECORDS, RATE) for _ in range(DRAWS)]
    assert looks_poisson(draws, RECORDS, RATE)


def shuffled(rng: np.random.Generator) -> list[np.ndarray]:
    size = int(RECORDS * RATE)
    epochs = [rng.permutation(RECORDS).reshape(-1, size) for _ in range(DRAWS * size // RECORDS)]
    return list(np.concatenate(epochs))


def fixed_size(rng: np.random.Generator) -> list[np.ndarray]:
    size = int(RECORDS * RATE)
    return [rng.choice(RECORDS, size, replace=False) for _ in range(DRAWS)]


def with_replacement(rng: np.random.Generator) -> list[np.ndarray]:
    sizes = rng.binomial(RECORDS, RATE, size=DRAWS)
    return [rng.choice(RECORDS, size, replace=True) for size in sizes]


def one_record_favoured(rng: np.random.Generator) -> list[np.ndarray]:
    rates = np.full(RECORDS, RATE)
    rates[0] = 2 * RATE
    return [np.flatnonzero(rng.random(RECORDS) < rates) for _ in range(DRAWS)]


def wrong_rate(rng: np.random.Generator) -> list[np.ndarray]:
    return [poisson_sample(rng, RECORDS, RATE * 1.03) for _ in range(DRAWS)]


@pytest.mark.parametrize(
    "planted", [shuffled, fixed_size, with_replacement, one_record_favoured, wrong_rate]
)
def test_another_sampler_accounted_as_poisson_is_caught(planted):
    assert not looks_poisson(planted(np.random.default_rng(0)), RECORDS, RATE)


def test_a_tiny_rate_is_not_rounded_to_single_precision():
    rng, rate, records = np.random.default_rng(0), 2.0**-26, 2**23
    drawn = sum(len(poisson_sample(rng, records, rate)) for _ in range(16))
    assert drawn < 20  # 2 are expected; float32 uniforms, multiples of 2⁻²⁴, would give 8


def test_slots_are_uniform_and_do_not_depend_on_position():
    rng = np.random.default_rng(0)
    slots = np.stack([assign_slots(rng, np.arange(8), 4) for _ in range(4000)])
    for position in range(8):
        assert stats.chisquare(np.bincount(slots[:, position], minlength=4)).pvalue > FALSE_ALARM
    together = np.mean(slots[:, :1] == slots[:, 1:], axis=0)
    assert np.all(abs(together - 0.25) < 6 * (0.25 * 0.75 / 4000) ** 0.5)


@given(
    slots=st.lists(st.integers(0, 9), max_size=40).map(np.array),
    limit=st.integers(1, 12),
)
def test_physical_batches_divide_no_microbatch_and_lose_nobody(slots, limit):
    pieces = list(physical_batches(slots.astype(np.int64), limit))
    assert sorted(np.concatenate([*pieces, []])) == list(range(len(slots)))
    of_piece = [set(slots[piece]) for piece in pieces]
    assert sum(map(len, of_piece)) == len(set(slots))
    assert all(len(p) <= limit or len(s) == 1 for p, s in zip(pieces, of_piece, strict=True))
