"""Features of sound in integers: what the emitted C computes, to the last bit.

Nothing can overflow. Windowed samples lie below 2^29 after a shift, and every stage of the
transform but the first halves: at its end stands X / (fft/2), below 2^30.5 in magnitude, whatever
the waveform. Powers are summed in 64 bits: their total is at most 0.4 × 2^60 by Parseval, is
shifted by 10, and is weighted with 15 bits. With 32-bit values and no scaling by blocks, rounding
in the transform lies some 50 dB below that of the int16 samples.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dpsgd_torch.features.sound.frontend import KEYWORDS, UNIT, Frontend
from dpsgd_torch.features.sound.tables import LOG_BITS, Ints, Tables, tables

POWER_SHIFT = 10
_AT_ONCE = 512
"""Frames: some 20 MB of intermediate values."""

_tables = lru_cache(maxsize=8)(tables)


def features(
    waveform: NDArray[np.int16], frontend: Frontend = KEYWORDS
) -> NDArray[np.int8] | NDArray[np.int16]:
    """Log-mel or MFCC features in integers; the reals are ``frontend.scales`` times them.

    >>> hum = np.sin(np.arange(16_000) / 7)
    >>> features((9000 * hum).astype(np.int16))[0]
    array([-62, 118,  45, -31, -75, -78, -51, -14,  16,  31], dtype=int8)

    Args:
        waveform: int16, (…, samples).
        frontend: what is computed.

    Returns:
        (…, frames, features), int8 or int16 as ``frontend.bits`` says.

    Raises:
        ValueError: the waveform is not int16, or holds no frame.
    """
    if waveform.dtype != np.int16:
        raise ValueError(f"waveform.dtype = {waveform.dtype}: must be int16")
    count = frontend.frames(waveform.shape[-1])
    waveforms = waveform.reshape(-1, waveform.shape[-1])
    views = sliding_window_view(waveforms, frontend.frame, axis=1)[:, :: frontend.hop]
    out = np.empty(
        (len(waveforms), count, frontend.features), np.int8 if frontend.bits == 8 else np.int16
    )
    rows = max(1, _AT_ONCE // count)
    for start in range(0, len(out), rows):
        part = views[start : start + rows].reshape(-1, frontend.frame)
        out[start : start + rows] = of_frames(part, frontend).reshape(-1, *out.shape[1:])
    return out.reshape(*waveform.shape[:-1], *out.shape[1:])


def model_inputs(waveform: NDArray[np.int16], frontend: Frontend = KEYWORDS) -> NDArray[np.float32]:
    """The same as a network takes them: integers times ``frontend.unit``, in [-1, 1).

    >>> model_inputs(np.zeros(16_000, np.int16)).shape
    (49, 10)
    """
    return features(waveform, frontend) * np.float32(frontend.unit)


def of_frames(frames: NDArray[np.int16], frontend: Frontend) -> Ints:
    """(count, frame) → (count, features)."""
    constants = _tables(frontend)
    logs = _log2(_energies(_transform(frames, frontend, constants), frontend, constants), constants)
    logs -= (UNIT + frontend.reference) << 15
    if frontend.coefficients is None:
        found = (logs * frontend.steps + (1 << 14)) >> 15
    else:
        steps = np.full(frontend.features, frontend.steps * frontend.finer)
        steps[0] = frontend.steps
        found = (_dct(logs, constants) * steps + (1 << 29)) >> 30
    half = 2 ** (frontend.bits - 1)
    return np.clip(found, -half, half - 1)


def _transform(
    frames: NDArray[np.int16], frontend: Frontend, constants: Tables
) -> tuple[Ints, Ints]:
    """Even samples as real, odd ones as imaginary parts, through a complex FFT of half the length.

    Decimation in time, bits reversed: each stage joins transforms of ``length`` and halves them.
    """
    size = frontend.fft // 2
    bits = size.bit_length() - 1
    n = np.arange(frontend.frame)
    window = constants.window[np.minimum(n, frontend.frame - n)]
    samples = np.zeros((len(frames), frontend.fft), np.int64)
    samples[:, : frontend.frame] = (frames.astype(np.int64) * window) >> 2
    order = np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(size)])
    real, imaginary = samples[:, 2 * order], samples[:, 2 * order + 1]
    for part in (real, imaginary):
        first, second = part[:, 0::2] + part[:, 1::2], part[:, 0::2] - part[:, 1::2]
        part[:, 0::2], part[:, 1::2] = first, second
    length = 2
    while length < size:
        shape = (len(frames), -1, 2, length)
        r, i = real.reshape(shape), imaginary.reshape(shape)
        turn = np.arange(length) * (size // length)
        turned_r, turned_i = _turned(r[:, :, 1], i[:, :, 1], turn, constants.sine)
        for values, turned in ((r, turned_r), (i, turned_i)):
            half = values[:, :, 0] >> 1
            values[:, :, 0], values[:, :, 1] = half + turned, half - turned
        length *= 2
    return real, imaginary


def _turned(real: Ints, imaginary: Ints, turn: Ints, sine: Ints) -> tuple[Ints, Ints]:
    """Half of (real + i imaginary) × exp(-2πi turn / fft), for turns of at most a half."""
    quarter = len(sine) - 1
    along = np.where(turn <= quarter, sine[np.abs(quarter - turn)], -sine[np.abs(turn - quarter)])
    across = sine[quarter - np.abs(quarter - turn)]
    return (
        (real * along + imaginary * across) >> 32,
        (imaginary * along - real * across) >> 32,
    )


def _energies(
    transform: tuple[Ints, Ints], frontend: Frontend, constants: Tables
) -> NDArray[np.uint64]:
    """Band energies: the spectrum of the real waveform, its power, summed under triangles."""
    real, imaginary = transform
    size = frontend.fft // 2
    edges, rise = constants.edges, constants.rise.astype(np.uint64)
    bins = np.arange(edges[0], edges[-1])
    here, there = bins % size, (size - bins) % size
    ar, ai, br, bi = real[:, here], imaginary[:, here], real[:, there], imaginary[:, there]
    odd_r, odd_i = (ai >> 1) + (bi >> 1), (br >> 1) - (ar >> 1)
    turned_r, turned_i = _turned(odd_r, odd_i, bins, constants.sine)
    xr = (ar >> 2) + (br >> 2) + turned_r
    xi = (ai >> 2) - (bi >> 2) + turned_i
    power = ((xr * xr + xi * xi) >> POWER_SHIFT).astype(np.uint64)
    total, rising = _sums(power, edges), _sums(power * rise, edges)
    falling = (total << np.uint64(15)) - rising
    return np.asarray(
        rising[:, :-1] + falling[:, 1:] + np.uint64(1 << (UNIT + frontend.floor)), np.uint64
    )


def _sums(values: NDArray[np.uint64], edges: Ints) -> NDArray[np.uint64]:
    """Over each stretch; some of the first are empty, which ``reduceat`` does not know."""
    ends = np.zeros((len(values), values.shape[1] + 1), np.uint64)
    np.cumsum(values, axis=1, out=ends[:, 1:])
    return ends[:, edges[1:] - edges[0]] - ends[:, edges[:-1] - edges[0]]


def _log2(energies: NDArray[np.uint64], constants: Tables) -> Ints:
    """15 fractional bits, by a straight line between 64 points an octave: within 5e-5."""
    one = np.uint64(1)
    exponent = np.zeros(energies.shape, np.uint64)
    for step in (32, 16, 8, 4, 2, 1):
        more = (energies >> (exponent + np.uint64(step))) > 0
        exponent += np.where(more, np.uint64(step), np.uint64(0))
    mantissa = energies << (np.uint64(63) - exponent) << one  # the leading one falls off
    fraction = (mantissa >> np.uint64(64 - LOG_BITS - 16)).astype(np.int64)
    index, rest = fraction >> 16, fraction & 0xFFFF
    low, high = constants.log[index], constants.log[index + 1]
    return (exponent.astype(np.int64) << 15) + low + (((high - low) * rest) >> 16)


def _dct(logs: Ints, constants: Tables) -> Ints:
    half = logs.shape[1] // 2
    first, last = logs[:, :half], logs[:, : half - 1 : -1]
    out = np.empty((len(logs), len(constants.dct)), np.int64)
    out[:, 0::2] = (first + last) @ constants.dct[0::2].T
    out[:, 1::2] = (first - last) @ constants.dct[1::2].T
    return out
