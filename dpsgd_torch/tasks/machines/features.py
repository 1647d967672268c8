"""What an autoencoder of machine sounds is given: five frames of 128 log-mel bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.features.sound import MACHINES, model_inputs
from dpsgd_torch.tasks.wav import to_int16

FRAMES = 5
VALUES = FRAMES * MACHINES.features
LEAST = MACHINES.samples(FRAMES)  # samples that give one vector
RANGE = MACHINES.input_range


def vectors(sound: NDArray[np.float32], every: int) -> NDArray[np.float32]:
    """(samples,) in [−1, 1] → (vectors, 640) in [−1, 1), one every so many frames.

    The integers that a board computes, over 128; frame after frame [Koizumi et al. 2020, §4].

    >>> vectors(np.zeros(16000, np.float32), 5).shape
    (6, 640)
    """
    bands = model_inputs(to_int16(sound), MACHINES)
    windows = np.lib.stride_tricks.sliding_window_view(bands, FRAMES, axis=0)[::every]
    return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(-1, VALUES)
