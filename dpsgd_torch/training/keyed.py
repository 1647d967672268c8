"""Noise that hangs on a step's sums too: where nothing else tells two runs of one seed apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.secure.generator import secure_bits, secure_generator
from dpsgd_torch.training.world import World


def keyed_by(sums: Sequence[torch.Tensor], rng: np.random.Generator) -> np.random.Generator:
    """A generator that is told by the sums as well: the same for the same, else another.

    >>> at = [keyed_by([torch.tensor([x])], np.random.default_rng(7)) for x in (1.0, 1.0, 2.0)]
    >>> first, again, other = (rng.random() for rng in at)
    >>> first == again, first == other
    (True, False)
    """
    return told_by(digested(sums, rng.bytes(32)), rng)


def keyed_by_parts(
    mine: Sequence[torch.Tensor], rng: np.random.Generator, world: World
) -> np.random.Generator:
    """A generator that is told by the sums of all ranks as well; the same on each of them.

    Args:
        mine: what this rank holds of them.
    """
    told = hashlib.blake2b(key=rng.bytes(32), digest_size=32)
    for each in world.exchange("what the sums are", digested(mine).hex()):
        told.update(bytes.fromhex(each))
    return told_by(told.digest(), rng)


def told_by(told: bytes, like: np.random.Generator) -> np.random.Generator:
    """A generator of ``like``'s kind, of 32 bytes that nobody else knows."""
    if secure_bits(like):
        return secure_generator(told)
    seed = np.random.SeedSequence(int.from_bytes(told, "little"), pool_size=8)
    return np.random.Generator(np.random.PCG64DXSM(seed))


def digested(sums: Sequence[torch.Tensor], key: bytes = b"") -> bytes:
    """A digest of what these sums are, to the last bit."""
    told = hashlib.blake2b(key=key, digest_size=32)
    for total in sums:
        told.update(raw_bytes(total))
    return told.digest()
