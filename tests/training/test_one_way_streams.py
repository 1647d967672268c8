"""What may be published of one stream tells nothing of another: initial weights, of the noise."""

import numpy as np
import pytest

from dpsgd_torch.app.assembly import own_root
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.streams import NAMES, ONE_WAY, Streams

WORD, LEFT, RIGHT = 2**32, 0xCA01F9DD, 0x4973F715


def unshifted(x):
    return x ^ (x >> 16)  # a shift by half of the word is its own inverse


def inverse(a):
    return pow(a, -1, WORD)


def pool_of(words):
    """numpy's ``generate_state`` turned round: the eight words that its pool held."""
    constant, pool = 0x8B51F9DD, []
    for word in map(int, words[:8]):
        times = constant * 0x58F38DED % WORD
        pool.append(unshifted(word) * inverse(times) % WORD ^ constant)
        constant = times
    return pool


def root_of(words, key):
    """The root whose stream of that key begins with these words [numpy, bit_generator.pyx]."""
    pool, constants = pool_of(words), [0x43B0D7E5]
    for _ in range(8 + 56 + 8 * len(key)):
        constants.append(constants[-1] * 0x931E8875 % WORD)

    def hashed(value, at):
        return unshifted((value ^ constants[at]) * constants[at + 1] % WORD)

    def unmixed(value, other):
        return (unshifted(value) + RIGHT * other) * inverse(LEFT) % WORD

    at = len(constants) - 1
    for value in reversed(key):
        for place in reversed(range(8)):
            at -= 1
            pool[place] = unmixed(pool[place], hashed(value, at))
    for source in reversed(range(8)):
        for place in reversed(range(8)):
            if place != source:
                at -= 1
                pool[place] = unmixed(pool[place], hashed(pool[source], at))
    entropy = [
        unshifted(word) * inverse(constants[i + 1]) % WORD ^ constants[i]
        for i, word in enumerate(pool)
    ]
    return sum(word << (32 * i) for i, word in enumerate(entropy))


def init_words(streams):
    """What torch's generator of initial weights is filled with, as its outputs tell."""
    return streams._seed("init", 0, 0).generate_state(624)


def test_the_words_of_one_ordinary_stream_give_the_root_away():
    root = int.from_bytes(np.random.default_rng(3).bytes(32), "big")
    assert root_of(init_words(Streams(root)), [NAMES.index("init"), 0, 0]) == root


def test_those_of_a_root_that_was_drawn_do_not():
    streams = Streams()
    found = root_of(init_words(streams), [NAMES.index("init"), 0, 0])
    assert streams.root > ONE_WAY > found
    assert streams.root % ONE_WAY != found
    noise = streams.numpy("noise").random(4)
    for guess in (found, found | ONE_WAY):
        assert not np.isin(Streams(guess).numpy("noise").random(4), noise).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_root_draws_the_same_again_and_each_stream_its_own(name):
    streams = Streams()
    again = Streams(streams.root)
    first = streams.numpy(name, step=3).random(4)
    assert np.array_equal(first, again.numpy(name, step=3).random(4))
    others = [streams.numpy(other, step=3).random(4) for other in NAMES if other != name]
    others += [streams.numpy(name, step=4).random(4), streams.numpy(name, attempt=1).random(4)]
    assert not np.isin(np.concatenate(others), first).any()


def test_folds_and_folders_keep_that_a_root_was_drawn(tmp_path):
    root = Streams().root
    assert own_root(root, "fold-1") & ONE_WAY
    assert not own_root(7, "fold-1") & ONE_WAY
    (tmp_path / "private").mkdir()
    RunFolder(tmp_path).write_root(root)
    assert RunFolder(tmp_path).read_root() == root
