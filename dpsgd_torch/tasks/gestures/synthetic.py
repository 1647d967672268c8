"""Made-up recordings of two gestures, from a model of how a held board moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.gestures.files import LIMITS, SAMPLES, Recordings

NAMES = ("hi", "sup")
COUNTS = (133, 132)  # so that 159 of 265 are for training, as of the recordings it stands in for
_RATE = 119.0  # samples a second
_EARTH = 9.80665  # m/s²
_SEED = 20260102


def synthetic_recordings(counts: tuple[int, int] = COUNTS, seed: int = _SEED) -> Recordings:
    """``counts`` recordings of "hi", a wave, and of "sup", an upward nod; the same for one seed.

    The board turns about the elbow or wrist, r = 0.1 … 0.3 m away, by angles that are smooth in
    time. A wave swings the yaw ψ to and fro 1.5 … 3 times a second by 10 … 30°; a nod lifts the
    pitch θ once by 20 … 55° and lets it sink again. Each has a little of the other axes, since no
    hand is steady, in a grip tilted by some 15°. The accelerometer feels gravity as the board is
    turned, r times angular acceleration along the path and r times angular velocity squared
    inwards, and 0.03 g of noise; the gyroscope the angles' rates and 3 °/s of noise. Both saturate.

    >>> recordings = synthetic_recordings((2, 3))
    >>> recordings.motion.shape, recordings.gesture.tolist(), recordings.names
    ((5, 119, 6), [0, 0, 1, 1, 1], ('hi', 'sup'))
    """
    rng = np.random.default_rng(seed)
    motion = [
        _recording(rng, wave=gesture == 0) for gesture in (0, 1) for _ in range(counts[gesture])
    ]
    return Recordings(np.stack(motion), np.repeat([0, 1], counts), NAMES)


def _recording(rng: np.random.Generator, *, wave: bool) -> NDArray[np.float64]:
    """(119, 6): one gesture."""
    t = np.arange(SAMPLES) / _RATE
    angles = np.radians(rng.normal(0, [[15], [15], [15]]) + _tremor(rng, t))  # roll, pitch, yaw
    if wave:
        angles[2] += _wave(rng, t)
        angles[1] += 0.3 * _nod(rng, t) * rng.random()
    else:
        angles[1] += _nod(rng, t)
        angles[2] += 0.3 * _wave(rng, t) * rng.random()
    rate = np.gradient(angles, 1 / _RATE, axis=1)
    turn = np.gradient(rate, 1 / _RATE, axis=1)
    roll, pitch, _ = angles
    felt = np.stack([-np.sin(pitch), np.cos(pitch) * np.sin(roll), np.cos(pitch) * np.cos(roll)])
    r = rng.uniform(0.1, 0.3) / _EARTH
    felt[0] -= r * (rate[1] ** 2 + rate[2] ** 2)
    felt[1] += r * turn[2]
    felt[2] -= r * turn[1]
    felt += rng.normal(0, 0.03, felt.shape)
    spun = np.degrees(rate) + rng.normal(0, 3, rate.shape)
    return np.clip(np.concatenate([felt, spun]).T, -LIMITS, LIMITS)


def _wave(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    swing = np.radians(rng.uniform(10, 30))
    phase = 2 * np.pi * (rng.uniform(1.5, 3) * t + rng.random())
    return np.asarray(swing * np.sin(phase) * np.minimum(1, t / 0.1))


def _nod(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    lift, top = np.radians(rng.uniform(20, 55)), rng.uniform(0.15, 0.5)
    up, down = rng.uniform(0.06, 0.15), rng.uniform(0.1, 0.3)
    return np.asarray(lift * np.exp(-(((t - top) / np.where(t < top, up, down)) ** 2)))


def _tremor(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 119) degrees: slow drift of each axis."""
    size, speed = rng.uniform(0, 6, (3, 1)), rng.uniform(0.3, 1.5, (3, 1))
    return np.asarray(size * np.sin(2 * np.pi * (speed * t + rng.random((3, 1)))))
