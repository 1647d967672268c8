"""Mel-frequency cepstral coefficients of one second of speech, as a keyword spotter takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.spectra import mel_powers
from dpsgd_torch.tasks.wav import RATE

FRAMES, COEFFICIENTS = 49, 10
_FRAME, _STEP, _BANDS = 640, 320, 40  # 40 ms, 20 ms
_LOW, _HIGH = 20.0, 4000.0  # Hz
_FLOOR = 1e-3  # of a band's power: digital silence sounds as a quiet room does
_LOUDEST = 50.0  # of the first coefficient's size; the others are a few times smaller
_OTHERS = 16.0
RANGE = (-1.0, 1.0)


def features(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """(…, 16000) in [−1, 1] → (…, 49, 10) in [−1, 1]: scaled MFCC of frames of 40 ms every 20 ms.

    ln of 40 mel bands, 20 to 4,000 Hz, then an orthonormal DCT-II [Davis, Mermelstein 1980, Eq. 2],
    of which the first ten are kept: the first over 50, the others over 16, cut to [−1, 1]. The
    scales are public constants, of no data.

    >>> features(np.zeros(16000, np.float32)).shape
    (49, 10)
    """
    assert waveform.shape[-1] == RATE
    powers = mel_powers(
        waveform, frame=_FRAME, step=_STEP, points=1024, bands=_BANDS, low=_LOW, high=_HIGH
    )
    cepstrum = np.log(powers + np.float32(_FLOOR)) @ _cosines()
    scale = np.full(COEFFICIENTS, _OTHERS, np.float32)
    scale[0] = _LOUDEST
    return np.clip(cepstrum / scale, *RANGE).astype(np.float32)


def _cosines() -> NDArray[np.float32]:
    """(40, 10): the orthonormal DCT-II."""
    k, n = np.arange(COEFFICIENTS), np.arange(_BANDS)[:, None]
    found = np.cos(np.pi * k * (2 * n + 1) / (2 * _BANDS)) * np.sqrt(2 / _BANDS)
    found[:, 0] /= np.sqrt(2)
    return found.astype(np.float32)
