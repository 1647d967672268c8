"""Log-mel spectra of sound, in numpy: frames, power spectrum, triangular bands."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.wav import RATE

Floats = NDArray[np.float32]


def mel_powers(
    sound: Floats, *, frame: int, step: int, points: int, bands: int, low: float, high: float
) -> Floats:
    """(…, samples) → (…, frames, bands): the power in each mel band of each Hann-windowed frame.

    Args:
        frame, step: samples a frame, and from one to the next; only whole frames are taken.
        points: of the Fourier transform, ``frame`` at least.
        low, high: where the first band begins and the last ends, in Hz.

    >>> mel_powers(np.zeros(16000, np.float32), frame=640, step=320, points=1024, bands=40,
    ...            low=20, high=4000).shape
    (49, 40)
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame, axis=-1)[..., ::step, :]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    spectrum = np.fft.rfft(frames * window, points, axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power @ mel_bank(points, bands, low, high)


@lru_cache(maxsize=8)
def mel_bank(points: int, bands: int, low: float, high: float) -> Floats:
    """(points / 2 + 1, bands): triangles that overlap by half, of equal width in mel.

    mel(f) = 1127 ln(1 + f / 700) [O'Shaughnessy 1987, p. 150].
    """

    def mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1127 * np.log1p(hertz / 700))

    first, last = mel(np.array([low, high])).tolist()
    edges = np.linspace(first, last, bands + 2)
    at = mel(np.arange(points // 2 + 1) * RATE / points)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    bank: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    bank.flags.writeable = False
    return bank
