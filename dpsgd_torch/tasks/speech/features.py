"""Mel-frequency cepstral coefficients of one second of speech, as a board computes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.features.sound import KEYWORDS, model_inputs
from dpsgd_torch.tasks.wav import RATE, to_int16

FRAMES, COEFFICIENTS = KEYWORDS.frames(RATE), KEYWORDS.features
RANGE = KEYWORDS.input_range


def features(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """(…, 16000) in [−1, 1] → (…, 49, 10) in [−1, 1): int8 MFCC of the int16 samples, over 128.

    >>> features(np.zeros(16000, np.float32)).shape
    (49, 10)
    """
    assert waveform.shape[-1] == RATE
    return model_inputs(to_int16(waveform), KEYWORDS)
