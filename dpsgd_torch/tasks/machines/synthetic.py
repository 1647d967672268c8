"""Made-up sounds of a machine: hum, harmonics and noise under a load; and what breaks in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.machines.features import vectors
from dpsgd_torch.tasks.machines.files import Vectors
from dpsgd_torch.tasks.wav import RATE

_SECONDS = 2
_HARMONICS = 40
_BUILT = 20260207  # the machine itself: every recording is of the same one
_FAULTS = ("whistle", "rattle", "beat", "grind")


def synthetic_machines(count: int, unusual: int, seed: int, every: int) -> Vectors:
    """Recordings of 2 s of one machine, the last ``unusual`` with a fault; same for one seed.

    A fault is a whistle, a rattle of clicks, a beat in the hum or a grinding noise in some band.

    >>> made = synthetic_machines(3, 1, 0, 5)
    >>> made.values.shape, made.unusual.tolist()
    ((36, 640), [False, False, True])
    """
    rng = np.random.default_rng(seed)
    parts = [vectors(_sound(rng, faulty=i >= count - unusual), every).copy() for i in range(count)]
    return Vectors.of(parts, [i >= count - unusual for i in range(count)])


def _sound(rng: np.random.Generator, *, faulty: bool) -> NDArray[np.float32]:
    built = np.random.default_rng(_BUILT)
    t = np.arange(_SECONDS * RATE) / RATE
    load = 1 + 0.04 * rng.normal() + 0.01 * np.sin(2 * np.pi * (0.5 * t + rng.random()))
    turns = np.cumsum(built.uniform(45, 70) * load) / RATE
    strength = 0.1 * built.uniform(0.1, 1, _HARMONICS) / np.arange(1, _HARMONICS + 1) ** 0.7
    fault = str(rng.choice(_FAULTS)) if faulty else ""
    beat = 1 + 0.5 * np.sin(2 * np.pi * 7 * t) if fault == "beat" else 1.0
    sound = np.zeros(len(t))
    for k in range(_HARMONICS):
        loud = strength[k] * np.exp(0.15 * rng.normal())
        sound += loud * np.sin(2 * np.pi * ((k + 1) * turns + rng.random()))
    sound = sound * beat + _coloured(rng, len(t), float(built.uniform(500, 3000)), 1500, 0.02)
    sound += _added(rng, fault, t)
    return np.clip(0.5 * sound * np.exp(0.1 * rng.normal()), -1, 1).astype(np.float32)


def _added(rng: np.random.Generator, fault: str, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is heard besides the hum."""
    if fault == "whistle":
        return np.asarray(0.02 * np.sin(2 * np.pi * rng.uniform(2000, 7000) * t))
    if fault == "rattle":
        clicks = (rng.random(len(t)) < 30 / RATE) * rng.uniform(0.3, 1, len(t))
        return np.asarray(np.convolve(clicks, np.exp(-np.arange(200) / 30), "same") * 0.5)
    if fault == "grind":
        return _coloured(rng, len(t), float(rng.uniform(2500, 6500)), 600, 0.03)
    return np.zeros(len(t))


def _coloured(
    rng: np.random.Generator, count: int, centre: float, width: float, size: float
) -> NDArray[np.float64]:
    """Noise around a frequency, of deviation ``size``."""
    at = np.fft.rfftfreq(count, 1 / RATE)
    shaped = np.fft.rfft(rng.normal(size=count)) / (1 + ((at - centre) / width) ** 2)
    noise = np.fft.irfft(shaped, count)
    return np.asarray(size * noise / noise.std())
