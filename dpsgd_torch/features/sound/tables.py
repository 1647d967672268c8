"""The constants of a front end, as the integers that numpy and C both use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.features.sound.frontend import MEL_BREAK, MEL_FACTOR, Frontend

Ints = NDArray[np.int64]

LOG_BITS = 6


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything that is looked up.

    Attributes:
        window: its first half, (frame/2 + 1,), 16 fractional bits: w[n] = w[frame - n].
        sine: a quarter of a wave, (fft/4 + 1,), 31 fractional bits.
        edges: the bin at which each of the bands + 1 stretches between centres begins, and the end.
        rise: per bin from edges[0], how far along its stretch it lies, 15 fractional bits.
        log: log2(1 + i/64), 15 fractional bits.
        dct: (coefficients, bands/2), 15 fractional bits: even rows are symmetric, odd ones
            antisymmetric.
    """

    window: Ints
    sine: Ints
    edges: Ints
    rise: Ints
    log: Ints
    dct: Ints


def tables(frontend: Frontend) -> Tables:
    """The tables of a front end.

    Raises:
        ValueError: a band lies between two bins.
    """
    half = np.arange(frontend.frame // 2 + 1)
    constant = 0.5 if frontend.window == "hann" else 0.54
    window = constant - (1 - constant) * np.cos(2 * np.pi * half / frontend.frame)
    quarter = np.sin(2 * np.pi * np.arange(frontend.fft // 4 + 1) / frontend.fft)
    edges, rise = _triangles(frontend)
    i = np.arange(2**LOG_BITS + 1) / 2**LOG_BITS
    return Tables(
        window=_fixed(window, 16, 2**16 - 1),
        sine=_fixed(quarter, 31, 2**31 - 1),
        edges=edges,
        rise=rise,
        log=_fixed(np.log2(1 + i), 15, 2**15),
        dct=_dct(frontend),
    )


def _mel(hertz: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(MEL_FACTOR * np.log1p(hertz / MEL_BREAK))


def _triangles(frontend: Frontend) -> tuple[Ints, Ints]:
    """(edges, rise): a bin between two centres is shared by their bands."""
    ends = _mel(np.array([frontend.low, frontend.high]))
    points = np.linspace(ends[0], ends[1], frontend.bands + 2)
    bins = _mel(np.arange(frontend.fft // 2 + 1) * (frontend.rate / frontend.fft))
    edges = np.searchsorted(bins, points).astype(np.int64)
    for band in range(frontend.bands):
        first, last = edges[band], edges[band + 2]
        if not np.any((bins[first:last] > points[band]) & (bins[first:last] < points[band + 2])):
            raise ValueError(
                f"bands = {frontend.bands}: band {band} lies between two bins; ask for fewer "
                f"bands, a longer fft than {frontend.fft} or a higher low than {frontend.low:g} Hz"
            )
    stretch = np.repeat(np.arange(frontend.bands + 1), np.diff(edges))
    along = (bins[edges[0] : edges[-1]] - points[stretch]) / np.diff(points)[stretch]
    return edges, _fixed(along, 15, 2**15)


def _dct(frontend: Frontend) -> Ints:
    rows = np.arange(frontend.coefficients or 0)[:, None]
    columns = np.arange(frontend.bands // 2)[None, :] + 0.5
    norm = np.where(rows == 0, np.sqrt(0.5), 1.0) * np.sqrt(2 / frontend.bands)
    return _fixed(norm * np.cos(np.pi * rows * columns / frontend.bands), 15, 2**15 - 1)


def _fixed(values: NDArray[np.float64], bits: int, highest: int) -> Ints:
    """Rounded to that many fractional bits, at most ``highest``."""
    return np.minimum(np.rint(values * 2.0**bits), highest).astype(np.int64)
