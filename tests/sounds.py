"""Waveforms that are easy and waveforms that are not."""

import numpy as np
import scipy.signal
from numpy.typing import NDArray

SECOND = 16_000


def sounds() -> dict[str, NDArray[np.int16]]:
    """A second each at 16 kHz."""
    rng = np.random.default_rng(18)
    t = np.arange(SECOND) / SECOND
    pulses = (np.arange(SECOND) % 133 == 0).astype(float)
    vowel = pulses
    for hertz, width in ((700, 90), (1220, 110), (2600, 170)):
        radius = np.exp(-np.pi * width / SECOND)
        poles = [1, -2 * radius * np.cos(2 * np.pi * hertz / SECOND), radius**2]
        vowel = scipy.signal.lfilter([1 - radius], poles, vowel)
    vowel *= 12_000 / np.abs(vowel).max() * (0.1 + np.sin(np.pi * t) ** 2)
    real = {
        "noise": 3000 * rng.standard_normal(SECOND),
        "whisper": 20 * rng.standard_normal(SECOND),
        "vowel": vowel + 5 * rng.standard_normal(SECOND),
        "chirp": 9000 * scipy.signal.chirp(t, 50, 1, 7500) + 5 * rng.standard_normal(SECOND),
        "loud": rng.integers(-32768, 32768, SECOND),
    }
    return {name: to_int16(values) for name, values in real.items()}


def hostile() -> dict[str, NDArray[np.int16]]:
    """What an ear never hears."""
    n = np.arange(SECOND)
    signs = np.where(np.random.default_rng(1).integers(0, 2, SECOND), 32767, -32768)
    return {
        name: to_int16(values)
        for name, values in {
            "silence": 0 * n,
            "lowest": 0 * n - 32768,
            "highest": 0 * n + 32767,
            "one": 0 * n + 1,
            "square wave": np.where(n // 50 % 2, 32767, -32768),
            "fastest": np.where(n % 2, 32767, -32768),
            "quarter rate": np.where(n // 2 % 2, 32767, -32768),
            "impulse": np.where(n == 5000, 32767, 0),
            "signs": signs,
            "tone": 32767 * np.sin(2 * np.pi * 1000 * n / SECOND),
        }.items()
    }


def to_int16(values: NDArray) -> NDArray[np.int16]:
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)
