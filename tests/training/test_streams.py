"""Randomness is an argument: independent streams, full keys, and no global generator touched."""

import numpy as np
import torch

from dpsgd_torch.training.streams import NAMES, Streams


def test_every_name_step_and_attempt_has_numbers_of_its_own():
    streams = Streams(5)
    drawn = [
        tuple(streams.numpy(name, attempt=attempt, step=step).random(4))
        for name in NAMES
        for attempt in range(3)
        for step in range(3)
    ]
    dropout = [
        tuple(torch.randn(4, generator=streams.torch("model", attempt=a, step=s)).tolist())
        for a in range(3)
        for s in range(3)
    ]
    assert len(set(drawn)) == len(drawn)
    assert len(set(dropout)) == len(dropout)


def test_the_whole_mersenne_state_comes_from_the_key():
    generator = Streams(5).torch("model", step=2)
    words = Streams(5)._seed("model", 0, 2).generate_state(624)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    ours = torch.randint(2**31, (50,), generator=generator).numpy()
    assert np.array_equal(ours, twister.random_raw(100)[1::2] % 2**31)  # two words a draw


def test_seeds_that_agree_in_32_bits_still_differ():
    a, b = Streams(3), Streams(3 + 2**40)
    draw = [torch.randn(3, generator=s.torch("model")) for s in (a, b)]
    assert not torch.equal(*draw)
    noise = [tuple(s.numpy("noise").standard_normal(3)) for s in (a, b)]
    assert noise[0] != noise[1]


def test_dropout_draws_from_its_stream_and_the_callers_generator_goes_on():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    streams, ones = Streams(1), torch.ones(1000)
    with streams.model_rng(attempt=0, step=4, device="cpu"):
        first = torch.dropout(ones, 0.5, True)
    with streams.model_rng(attempt=0, step=4, device="cpu"):
        again = torch.dropout(ones, 0.5, True)
    with streams.model_rng(attempt=0, step=5, device="cpu"):
        other = torch.dropout(ones, 0.5, True)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)


def test_the_default_key_is_long_secret_and_new():
    one, two = Streams(), Streams()
    assert one.root != two.root
    assert one.root.bit_length() > 200
    assert str(one.root) not in repr(one)
