"""Philox in torch's integers: the published answers, the law of what is drawn, and its places."""

import numpy as np
import pytest
import torch
from scipy import stats
from small_problem import make_trainer, weights

from dpsgd_torch import Privacy
from dpsgd_torch.noise import on_device
from dpsgd_torch.noise.base import Release, StepPlan
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.noise.on_device import ON_DEVICE, from_words, normal
from dpsgd_torch.noise.philox import keyed_words, philox

CPU = torch.device("cpu")
ONES = 0xFFFFFFFF
ANSWERS = [  # of Random123, kat_vectors: philox4x32 10; counter, key, answer
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
KEY = bytes(range(32))


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_known_answers_are_given(counter, key, answer):
    words = philox(tuple(torch.tensor([word]) for word in numbers(counter)), tuple(numbers(key)))
    assert [int(word) for word in words] == numbers(answer)


@pytest.mark.parametrize("byte", range(32))
def test_every_byte_of_the_key_counts(byte):
    other = bytearray(KEY)
    other[byte] ^= 1
    first, second = (keyed_words(bytes(k), 0, 4, CPU) for k in (KEY, other))
    assert not any(map(torch.equal, first, second))


def test_a_number_hangs_on_its_place_alone():
    rng = np.random.default_rng(0)
    together = normal(KEY, 0, 1000, CPU, rng)
    apart = torch.cat([normal(KEY, start, 100, CPU, rng) for start in range(0, 1000, 100)])
    assert torch.equal(together, apart)
    beyond_32_bits = keyed_words(KEY, 2**32, 4, CPU)
    assert not any(map(torch.equal, beyond_32_bits, keyed_words(KEY, 0, 4, CPU)))


def test_numbers_are_normal_and_no_two_hang_together():
    values = normal(KEY, 0, 400_000, CPU, np.random.default_rng(0)).numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert stats.kstest(values * 1.01, "norm").pvalue < 1e-3  # which the test would see
    for lag in (1, 2, 3):
        for function in (np.abs, np.sign, np.square):  # pairs of one radius would show
            a, b = function(values[lag:]), function(values[:-lag])
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


@pytest.mark.parametrize(
    ("words", "share"),
    [((0, 0, 0, 0), 2.0**-129), ((0, 1, 0, 0), 2.0**-64), ((0x7FFFFFFF, ONES, ONES, ONES), 0.5)],
)
def test_small_numbers_are_turned_into_far_ones_of_either_sign(words, share):
    mine = [torch.tensor([word]) for word in words]
    value = float(from_words(mine))
    mine[0] = mine[0] | 0x80000000
    assert value == -float(from_words(mine))
    assert stats.norm.cdf(value) == pytest.approx(share, rel=1e-9)


def test_what_lies_far_is_drawn_anew(monkeypatch):
    monkeypatch.setattr(on_device, "FAR", 1.0)
    monkeypatch.setattr(on_device, "beyond", lambda rng: 77.0)
    values = normal(KEY, 0, 1000, CPU, np.random.default_rng(0)).abs()
    assert 250 < int((values == 77.0).sum()) < 400
    assert float(values[values != 77.0].max()) <= 1.0


def released(noise, sigma, seed=0):
    params = [torch.nn.Parameter(torch.zeros(n)) for n in (70_000, 3, 1)]
    sums = [torch.zeros(p.shape, dtype=torch.float64) for p in params]
    plan = StepPlan(0.5, sigma)
    noise.add(sums, params, Release(plan, 0, 4, np.random.default_rng(seed)))
    return torch.cat([p.grad for p in params]).double() * 4


def test_what_is_released_has_the_planned_deviation():
    values = released(ON_DEVICE, 2.0)
    expected = released(INDEPENDENT, 2.0)
    assert abs(float(values.std()) - 1.0) < 0.02
    assert abs(float(values.std() / expected.std()) - 1) < 0.02
    assert not torch.equal(values, released(ON_DEVICE, 2.0, seed=1))
    assert torch.equal(values, released(ON_DEVICE, 2.0))


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_another_deviation_than_planned_is_caught(monkeypatch, wrong):
    honest = on_device.normal
    monkeypatch.setattr(on_device, "normal", lambda *given: honest(*given) * wrong)
    with pytest.raises(Exception, match="noise energy"):
        released(ON_DEVICE, 2.0)


def test_pieces_of_any_size_release_the_same(monkeypatch):
    before = released(ON_DEVICE, 1.0)
    monkeypatch.setattr(on_device, "_PIECE", {"cpu": 1000})
    assert torch.equal(before, released(ON_DEVICE, 1.0))


def test_a_run_with_it_costs_the_same_and_resumes_bit_for_bit(tmp_path):
    promise = {"delta": 1e-3, "clip_norm": 1.0, "noise_multiplier": 1.0}
    privacy = Privacy(**promise, noise=ON_DEVICE)
    whole = make_trainer(privacy=privacy).fit()
    begun = make_trainer(privacy=privacy, run_dir=tmp_path / "run", checkpoint_every=1)
    steps = begun.run()
    next(steps), next(steps)
    steps.close()
    begun.close()
    resumed = make_trainer(privacy=privacy, run_dir=tmp_path / "run", checkpoint_every=1)
    resumed.resume().fit()
    other = make_trainer(privacy=Privacy(**promise)).fit()
    assert torch.equal(weights(whole.model), weights(resumed.model))
    assert not torch.equal(weights(whole.model), weights(other.model))
    assert whole.privacy_spent().epsilon == other.privacy_spent().epsilon
