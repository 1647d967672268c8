"""Philox: random words from a counter and a key, the same on every device, in any order.

Philox4x32-10 [Salmon, Moraes, Dror, Shaw 2011, Section 3.3] in torch's integer operations: words of
32 bits in int64, whose products wrap as the hardware's do.
"""

from __future__ import annotations

import numpy as np
import torch

KEY = 32  # bytes of a key
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF

Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words (n,) of 32 bits for each counter of four.

    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> [f"{int(word):08x}" for word in philox((zero, zero, zero, zero), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    (a, b, c, d), (first, second) = counter, key
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = _high(right) ^ b ^ first, _high(left) ^ d ^ second
        b, d = right & _WORD, left & _WORD
        first, second = (first + _WEYL[0]) & _WORD, (second + _WEYL[1]) & _WORD
    return a, b, c, d


def keyed_words(key: bytes, start: int, count: int, device: torch.device) -> Words:
    """128 bits for each of the numbers from ``start`` on, of a key of 256 bits.

    Philox takes 64 bits of key: two of them are added bit by bit, each with a key of its own and
    64 bits more in the half of its counter that does not count.

    >>> one, two = keyed_words(bytes(32), 5, 1, torch.device("cpu")), bytes(31) + b"1"
    >>> all(map(torch.equal, one, keyed_words(two, 5, 1, torch.device("cpu"))))
    False
    """
    at = torch.arange(start, start + count, dtype=torch.int64, device=device)
    low, high = at & _WORD, _high(at)
    parts = np.frombuffer(key, "<u4", KEY // 4).tolist()
    found = []
    for first, second, third, fourth in (parts[:4], parts[4:]):
        counter = (low, high, torch.full_like(at, third), torch.full_like(at, fourth))
        found.append(philox(counter, (first, second)))
    a, b, c, d = (left ^ right for left, right in zip(*found, strict=True))
    return a, b, c, d


def _high(words: torch.Tensor) -> torch.Tensor:
    return (words >> 32) & _WORD  # the shift copies the sign, which the mask takes off again
