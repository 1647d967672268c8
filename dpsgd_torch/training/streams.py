"""Randomness as an argument: every draw is a pure function of (root key, name, attempt, step)."""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from dpsgd_torch.secure.generator import derived_key, secure_generator

Device = torch.device | str
NAMES = (
    *("init", "sampling", "slots", "noise", "model", "rows", "validation", "folds"),
    *("augmentation", "canaries", "coins", "parts"),
)


ONE_WAY = 1 << 256
"""Set in a root that was drawn from the operating system by this release or a later one."""


def drawn_root() -> int:
    """A root of 256 bits of the operating system's, whose streams tell nothing of it."""
    return secrets.randbits(256) | ONE_WAY


class Key(int):
    """256 bits that were drawn from the operating system for a run, and are no seed of anyone's."""


@dataclass(frozen=True)
class Streams:
    """Independent random streams that need no saved state: a resumed run asks for the same step.

    * Streams differ by name, by attempt and by step, so noise never meets two gradients: an
      attempt that cannot repeat bit for bit gets a number, and with it draws, of its own.
    * The noise also depends on ``context``, a digest of the run's contract: two runs given one
      seed never share noise, which could be cancelled between them.
    * Noise is numpy's on every device, its generator's whole state filled from the 256-bit key.
    * What torch draws (dropout, initial weights) comes on the CPU from a Mersenne Twister whose
      whole state is filled from the key, since torch's own ``manual_seed`` keeps 32 bits of a seed,
      few enough to try them all; CUDA takes 64 bits.
    * Python's and numpy's global generators are seeded for each step too, with 256 bits each: a
      model or collate function that draws from them does the same when a step is repeated.
    * The key is the secret that the noise rests on; it is kept out of everything published. The
      generators are not cryptographic.
    * numpy's ``SeedSequence`` can be turned round: who sees one stream's words, say those of
      initial weights that are never trained, has the root and all noise. So of a root that was
      drawn (``drawn_root``) each stream has a key of its own, by BLAKE2b, one-way. A seed that was
      given, which somebody knows, and a run that was begun before, have their streams as ever.
    * ``secure``: that too, and what numpy draws (samples, slots, noise) comes from AES-256 in
      counter mode. torch's and Python's generators, for initial weights and dropout, on which no ε
      rests, are as ever.

    >>> streams = Streams(root=7)
    >>> first, again = (streams.numpy("sampling", step=3).random() for _ in range(2))
    >>> first == again
    True
    """

    root: int = field(default_factory=drawn_root, repr=False)
    context: str = ""
    rank: int = 0  # not of draws that all ranks share
    secure: bool = False

    def _seed(self, name: str, attempt: int, step: int) -> np.random.SeedSequence:
        if self.secure or self.root & ONE_WAY:
            use = "seed" if self.secure else "ordinary seed"
            told = int.from_bytes(self._derived(use, name, attempt, step), "big")
            return np.random.SeedSequence(told, pool_size=8)
        key = [NAMES.index(name), attempt, step]
        key += [self.rank] if self.rank else []
        if name in ("noise", "validation"):
            key += np.frombuffer(hashlib.sha256(self.context.encode()).digest(), np.uint32).tolist()
        return np.random.SeedSequence(self.root, spawn_key=key, pool_size=8)

    def _derived(self, use: str, name: str, attempt: int, step: int) -> bytes:
        context = self.context if name in ("noise", "validation") else ""
        return derived_key(self.root % ONE_WAY, use, name, attempt, step, self.rank, context)

    def numpy(self, name: str, *, attempt: int = 0, step: int = 0) -> np.random.Generator:
        """A numpy generator at the start of that stream."""
        if self.secure:
            return secure_generator(self._derived("stream", name, attempt, step))
        return np.random.Generator(np.random.PCG64DXSM(self._seed(name, attempt, step)))

    def key(self, name: str, *, attempt: int = 0, step: int = 0) -> bytes:
        """256 bits of that stream, from which others draw without knowing the root."""
        if self.secure:
            return self._derived("key", name, attempt, step)
        return self._seed(name, attempt, step).generate_state(8).tobytes()

    def torch(
        self, name: str, *, attempt: int = 0, step: int = 0, device: Device = "cpu"
    ) -> Generator:
        """A torch generator at the start of that stream, on ``device``."""
        seed = self._seed(name, attempt, step)
        generator = Generator(device)
        if generator.device.type == "cpu":
            state = generator.manual_seed(0).get_state().numpy()
            # ATen's legacy layout: seed, left and seeded, next, then 624 words of 64 bits.
            state[24 : 24 + 624 * 8].view(np.uint64)[:] = seed.generate_state(624)
            generator.set_state(torch.from_numpy(state))
        else:
            generator.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        return generator

    @contextlib.contextmanager
    def model_rng(
        self, *, attempt: int, step: int, device: Device, rank: int = 0
    ) -> Iterator[None]:
        """Let dropout, and what draws from ``random`` or ``numpy.random``, draw from streams.

        A step that is repeated draws the same; the caller's global generators stay untouched.
        Ranks, which take different examples, draw by streams of their own.
        """
        if rank:
            of_rank = replace(self, rank=rank)
            with of_rank.model_rng(attempt=attempt, step=step, device=device):
                yield
            return
        on_gpu = torch.device(device).type == "cuda"
        words = self._seed("model", attempt, step).spawn(1)[0].generate_state(16)
        with _python_and_numpy(words), torch.random.fork_rng(devices=[device] if on_gpu else []):
            if on_gpu:
                seed = self._seed("model", attempt, step).generate_state(1, np.uint64)[0]
                torch.cuda.manual_seed(int(seed))
            cpu = self.torch("model", attempt=attempt, step=step)
            torch.default_generator.set_state(cpu.get_state())
            yield


@contextlib.contextmanager
def _python_and_numpy(words: NDArray[Any]) -> Iterator[None]:
    """Seed the global generators of Python and numpy with half of the words each, for a while."""
    python, legacy = random.getstate(), np.random.get_state()
    half = len(words) // 2
    try:
        random.seed(words[:half].tobytes())
        np.random.seed(words[half:])
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
