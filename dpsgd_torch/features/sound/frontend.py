"""What a front end for sound computes: frames, bands, coefficients, and what its integers mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MEL_BREAK, MEL_FACTOR = 700.0, 1127.0  # mel = 1127 ln(1 + f / 700) [HTK Book, Sec. 5.4]
UNIT = 65
"""An integer band energy of 2^65 would stand for a power of one; see ``integers.py``."""


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """Log-mel energies of a waveform, or mel-frequency cepstral coefficients (MFCC), in integers.

    With x in [-1, 1], X the ``fft``-point transform of a windowed frame and w triangular weights
    (linear in mel), a band's power is p = Σ w |X / fft|², and the features are

        f = ln(p + 2^floor) - reference ln 2, then, for MFCC, their orthonormal DCT-II,

    rounded to whole multiples of ``scales`` and clamped to ``bits``. A network takes an integer as
    that many times 2^(1 - bits), which lies in [-1, 1).

    >>> KEYWORDS.frames(16_000), KEYWORDS.features, KEYWORDS.scales[:2].round(4).tolist()
    (49, 10, [0.6931, 0.1733])

    Attributes:
        frame, hop: samples.
        fft: a power of two, the frame filled up with zeros.
        low, high: Hz, where the first triangle begins and the last one ends.
        coefficients: how many of the DCT are kept; None: the log-mel energies themselves.
        steps: integers a doubling of power: a scale is ln 2 / steps.
        finer: so many times the steps for all coefficients but the first, which vary less.
        floor: the power added to every band's, as a power of two; from -60 on, and -45 is what an
            int16's own rounding leaves in a bin.
        reference: the power that stands for zero, as a power of two.
    """

    rate: int = 16_000
    frame: int = 640
    hop: int = 320
    fft: int = 1024
    window: Literal["hann", "hamming"] = "hann"
    bands: int = 40
    low: float = 20.0
    high: float = 4000.0
    coefficients: int | None = 10
    bits: Literal[8, 16] = 8
    steps: int = 1
    finer: int = 4
    floor: int = -36
    reference: int = -22

    def __post_init__(self) -> None:
        if self.fft not in (128, 256, 512, 1024, 2048):
            raise ValueError(f"fft = {self.fft}: must be a power of two from 128 to 2048")
        if not 2 <= self.frame <= self.fft or self.frame % 2:
            raise ValueError(f"frame = {self.frame}: must be even, and at most fft = {self.fft}")
        if not 1 <= self.hop <= self.frame:
            raise ValueError(f"hop = {self.hop}: must lie between 1 and frame = {self.frame}")
        if self.window not in ("hann", "hamming"):
            raise ValueError(f"window = {self.window!r}: must be hann or hamming")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"low, high = {self.low:g}, {self.high:g}: must rise, from 0 to half of "
                f"rate = {self.rate}"
            )
        if not 2 <= self.bands <= 128 or self.bands % 2:
            raise ValueError(f"bands = {self.bands}: must be even, from 2 to 128")
        if self.coefficients is not None and not 1 <= self.coefficients <= self.bands:
            raise ValueError(
                f"coefficients = {self.coefficients}: must lie between 1 and bands = {self.bands}"
            )
        if self.bits not in (8, 16):
            raise ValueError(f"bits = {self.bits}: must be 8 or 16")
        if not 1 <= self.steps * self.finer <= 512:
            raise ValueError(
                f"steps, finer = {self.steps}, {self.finer}: their product must be from 1 to 512"
            )
        if self.coefficients is None and self.finer != 1:
            raise ValueError(f"finer = {self.finer}: log-mel energies have one scale; use 1")
        if not -60 <= self.floor <= -10:
            raise ValueError(f"floor = {self.floor}: must lie between -60 and -10")
        if not -UNIT < self.reference < 0:
            raise ValueError(f"reference = {self.reference}: must lie between {1 - UNIT} and -1")

    @property
    def features(self) -> int:
        """Of a frame."""
        return self.coefficients or self.bands

    @property
    def scales(self) -> NDArray[np.float64]:
        """What a feature of one stands for, (features,): logarithms of power."""
        steps = np.full(self.features, self.steps * self.finer)
        steps[0] = self.steps
        return np.asarray(math.log(2) / steps)

    @property
    def unit(self) -> float:
        """What a network takes a feature of one for."""
        return float(2.0 ** (1 - self.bits))

    @property
    def input_range(self) -> tuple[float, float]:
        """Of a network: one that is compiled with it takes the integers as they are."""
        return -1.0, 1.0 - self.unit

    def frames(self, samples: int) -> int:
        """Whole frames in so many samples.

        Raises:
            ValueError: there is none.
        """
        if samples < self.frame:
            raise ValueError(f"samples = {samples}: a frame takes {self.frame}")
        return 1 + (samples - self.frame) // self.hop

    def samples(self, frames: int) -> int:
        """Samples in so many frames."""
        return self.frame + (frames - 1) * self.hop


KEYWORDS = Frontend()
"""49 × 10 MFCC of a second: keyword spotting. The floor is white noise 80 dB below full scale."""

MACHINES = Frontend(
    frame=1024,
    hop=512,
    bands=128,
    low=0.0,
    high=8000.0,
    coefficients=None,
    steps=5,
    finer=1,
    floor=-45,
    reference=-24,
)
"""128 log-mel energies every 32 ms, five frames of which are 640 values: sounds of machines."""
