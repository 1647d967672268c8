"""AES-256 in counter mode as a numpy bit generator, and keys derived by BLAKE2b.

Every stream has a key of its own, derived one-way from the run's: what is known of one stream,
say from masks of dropout that can be read off the weights, tells nothing of the run's key or of
another stream.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accountant import InvalidValue

Words = NDArray[np.uint64]

_AHEAD = 512  # words that are expanded at once for numpy's own laws


class _BitGen(ctypes.Structure):
    """numpy's ``bitgen_t``, by which its laws ask for bits (numpy/random/bitgen.h)."""

    _fields_ = (
        ("state", ctypes.c_void_p),
        ("next_uint64", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)),
        ("next_uint32", ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)),
        ("next_double", ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)),
        ("next_raw", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)),
    )


class AesCounter(np.random.BitGenerator):
    """AES-256-CTR under a key of 32 bytes, counted from 0, as numpy's source of bits.

    * All of numpy's laws draw from it, one word at a time; ``words`` and ``raw`` take many.
    * The key is used for one stream alone, so no counter is ever used twice.
    * Its state is not told, copied or pickled.

    >>> from dpsgd_torch.secure.generator import secure_generator
    >>> one, again = (secure_generator(bytes(32)) for _ in range(2))
    >>> bool((one.bit_generator.words(3) == again.bit_generator.words(3)).all())
    True
    """

    def __init__(self, key: bytes) -> None:
        super().__init__(0)  # whose words are not used
        self._encryptor = _encryptor(key)
        address = self.ctypes.bit_generator.value
        assert address is not None
        self._calls = _BitGen.from_address(address)
        self._kept = _callbacks(self.words)
        self._calls.next_uint64, self._calls.next_uint32 = self._kept[:2]
        self._calls.next_double, self._calls.next_raw = self._kept[2:]

    def raw(self, count: int) -> bytes:
        """So many bytes of the key stream."""
        return bytes(self._encryptor.update(bytes(count)))

    def words(self, count: int) -> Words:
        """(count,) uniform integers of 64 bits."""
        return np.frombuffer(self.raw(8 * count), np.uint64)

    def __reduce__(self) -> Any:
        raise TypeError("a secure generator is not pickled: its key would lie in the file")


def secure_generator(key: bytes) -> np.random.Generator:
    """A numpy generator that draws from AES-256 in counter mode.

    >>> secure_generator(bytes(32)).integers(100, size=3)
    array([53, 52, 72])
    """
    return np.random.Generator(AesCounter(key))


def secure_bits(rng: np.random.Generator) -> AesCounter | None:
    """What a generator draws from, if that is cryptographic."""
    bits = rng.bit_generator
    return bits if isinstance(bits, AesCounter) else None


def derived_key(root: int, *names: object) -> bytes:
    """32 bytes for the stream of that name: BLAKE2b keyed with the 256 bits of ``root``.

    >>> derived_key(7, "noise", 0, 1) == derived_key(7, "noise", 0, 2)
    False
    """
    told = hashlib.blake2b(key=root.to_bytes(32, "big"), digest_size=32, person=b"dpsgd-stream")
    for name in names:
        text = str(name).encode()
        told.update(len(text).to_bytes(8, "big") + text)
    return told.digest()


def refuse_missing() -> None:
    """Refuse secure mode where its library is not installed, before anything is charged."""
    _encryptor(bytes(32))


def _encryptor(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise InvalidValue("cryptography: is missing; pip install 'dpsgd_torch[secure]'") from error
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


def _callbacks(words: Callable[[int], Words]) -> tuple[Any, Any, Any, Any]:
    """The four functions of ``bitgen_t``; a 32-bit word is the upper half of one of 64."""
    ahead: list[int] = []

    def word(_: Any = None) -> int:
        if not ahead:
            ahead.extend(words(_AHEAD)[::-1].tolist())
        return ahead.pop()

    kinds = [kind for _, kind in _BitGen._fields_[1:]]
    functions = (word, lambda _: word() >> 32, lambda _: (word() >> 11) * 2.0**-53, word)
    made: Any = tuple(kind(function) for kind, function in zip(kinds, functions, strict=True))
    return made
