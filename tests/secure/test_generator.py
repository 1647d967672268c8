"""The generator is AES-256 in counter mode, under keys that tell nothing of each other."""

import copy
import pickle

import numpy as np
import pytest

from dpsgd_torch.samplers.poisson import poisson_sample
from dpsgd_torch.secure.generator import derived_key, secure_bits, secure_generator
from dpsgd_torch.training.streams import NAMES, Streams

ZERO = bytes(32)


def test_its_first_block_is_the_one_of_the_standard():
    # AES-256 of a block of zeros under a key of zeros [NIST AESAVS, GFSbox of a zero plaintext]
    assert secure_bits(secure_generator(ZERO)).raw(16).hex() == "dc95c078a2408989ad48a21492842087"


def test_numpys_laws_take_its_words_in_their_order():
    taken = secure_generator(ZERO).integers(2**64, size=1500, dtype=np.uint64)
    assert np.array_equal(taken, secure_bits(secure_generator(ZERO)).words(1536)[:1500])
    floats = secure_generator(ZERO).random(10)
    assert np.array_equal(floats, (taken[:10] >> np.uint64(11)) * 2.0**-53)
    assert abs(secure_generator(ZERO).standard_normal(20_000).std() - 1) < 0.02


def test_a_generator_is_neither_copied_nor_stored():
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(secure_generator(ZERO).bit_generator)
    with pytest.raises(TypeError, match="is not pickled"):
        copy.deepcopy(secure_generator(ZERO).bit_generator)
    assert secure_bits(np.random.default_rng(0)) is None


def test_every_stream_has_a_key_of_its_own():
    keys = {
        derived_key(root, use, name, attempt, step)
        for root in (1, 2)
        for use in ("stream", "key")
        for name in NAMES
        for attempt in (0, 1)
        for step in (0, 1)
    }
    assert len(keys) == 2 * 2 * len(NAMES) * 2 * 2
    assert derived_key(1, "a", "bc") != derived_key(1, "ab", "c")


def test_secure_streams_share_nothing_with_the_ordinary_ones_or_each_other():
    root = Streams().root
    for name in NAMES:
        words = [
            Streams(root, context, rank, secure).numpy(name, attempt=attempt, step=step).bytes(16)
            for context in ("", "other") for rank in (0, 1) for secure in (False, True)
            for attempt in (0, 1) for step in (0, 1)
        ]  # fmt: skip
        apart = 2 if name in ("noise", "validation") else 1
        assert len(set(words)) == 16 * apart
    secure = Streams(root, secure=True)
    assert secure.key("augmentation") != Streams(root).key("augmentation")
    assert secure.torch("init").initial_seed() == Streams(root).torch("init").initial_seed() == 0
    state = secure.torch("init").get_state(), Streams(root).torch("init").get_state()
    assert not state[0].equal(state[1])


def test_a_secure_poisson_sample_has_its_rate():
    rng = secure_generator(ZERO)
    sizes = [len(poisson_sample(rng, 10_000, 0.03)) for _ in range(400)]
    assert abs(np.mean(sizes) - 300) < 5 * np.sqrt(300 * 0.97 / 400)
    assert abs(np.mean(sizes) - 200) > 50  # the control: another rate would be seen
    assert np.array_equal(poisson_sample(rng, 7, 1.0), np.arange(7))
    assert len(poisson_sample(rng, 10_000, 2.0**-65)) == 0
