"""What an autoencoder of machine sounds is given: five frames of 128 log-mel bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.spectra import mel_powers

BANDS, FRAMES = 128, 5
VALUES = BANDS * FRAMES
_FRAME, _STEP = 1024, 512  # 64 ms, 32 ms
LEAST = _FRAME + (FRAMES - 1) * _STEP  # samples that give one vector
_FLOOR = 1e-7  # of a band's power
_MIDDLE, _SCALE = 0.0, 30.0  # dB
RANGE = (-2.0, 2.0)


def vectors(sound: NDArray[np.float32], every: int) -> NDArray[np.float32]:
    """(samples,) in [−1, 1] → (vectors, 640) in [−2, 2]: dB over 30, one every so many frames.

    Frames of 64 ms every 32 ms, bands from 0 to 8 kHz, frame after frame [Koizumi et al. 2020, §4].

    >>> vectors(np.zeros(16000, np.float32), 5).shape
    (6, 640)
    """
    powers = mel_powers(
        sound, frame=_FRAME, step=_STEP, points=_FRAME, bands=BANDS, low=0.0, high=8000.0
    )
    decibels = 10 * np.log10(powers + np.float32(_FLOOR))
    scaled = np.clip((decibels - _MIDDLE) / _SCALE, *RANGE).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, FRAMES, axis=0)[::every]
    return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(-1, VALUES)
