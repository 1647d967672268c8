"""What a front end for sound computes: frames, bands, coefficients, and what its integers mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MEL_BREAK, MEL_FACTOR = 700.0, 1127.0  # mel = 1127 ln(1 + f / 700) [HTK Book, Sec. 5.4]
UNIT = 65
"""An integer band energy of 2^65 would stand for a power of one; see ``integers.py``."""
FLOOR = 20
"""2^20 is added to every band energy: a power of 2^-45, an int16's own rounding in a bin."""


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """Log-mel energies of a waveform, or mel-frequency cepstral coefficients (MFCC), in integers.

    With x in [-1, 1], X the ``fft``-point transform of a windowed frame and w triangular weights
    (linear in mel), a band's power is p = Σ w |X / fft|², and the features are

        f = ln(p + 2^-45) - reference ln 2, then, for MFCC, their orthonormal DCT-II,

    rounded to whole multiples of ``scale`` and clamped to ``bits``.

    >>> KEYWORDS.frames(16_000), KEYWORDS.features, round(KEYWORDS.scale, 4)
    (49, 10, 0.6931)

    Attributes:
        frame, hop: samples.
        fft: a power of two, the frame filled up with zeros.
        low, high: Hz, where the first triangle begins and the last one ends.
        coefficients: how many of the DCT are kept; None: the log-mel energies themselves.
        steps: integers a doubling of power: ``scale`` is ln 2 / steps.
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
    reference: int = -26

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
        if not 1 <= self.steps <= 512:
            raise ValueError(f"steps = {self.steps}: must lie between 1 and 512")
        if not -UNIT < self.reference < 0:
            raise ValueError(f"reference = {self.reference}: must lie between {1 - UNIT} and -1")

    @property
    def features(self) -> int:
        """Of a frame."""
        return self.coefficients or self.bands

    @property
    def scale(self) -> float:
        """What a feature of one stands for, in nepers of power."""
        return math.log(2) / self.steps

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and greatest feature: a model of this input range takes integers as they are."""
        half = 2 ** (self.bits - 1)
        return -half * self.scale, (half - 1) * self.scale

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
"""49 × 10 MFCC of a second: keyword spotting. No waveform reaches the ends of int8."""

MACHINES = Frontend(
    frame=1024, hop=512, bands=128, low=0.0, high=8000.0, coefficients=None, steps=5, reference=-24
)
"""128 log-mel energies every 32 ms, five frames of which are 640 values: sounds of machines."""
