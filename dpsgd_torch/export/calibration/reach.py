"""How far a tensor's range reaches, by the values that public or made-up inputs give it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.ranges import Range, with_margin

_SAMPLED = 1 << 16  # values of a tensor, evenly picked
_SHARES = np.linspace(0.2, 1.0, 41)
_LEFT_OUT = 1e-4  # of the values, at each end


def least_error(values: Floats) -> Range:
    """The share of (smallest, largest) whose rounding and cutting cost the least squared error.

    >>> values = np.random.default_rng(0).normal(size=60_000)
    >>> values.max().round(1), round(least_error(values)[1], 1)
    (np.float64(4.7), 4.2)
    """
    picked = values.reshape(-1)
    picked = picked[:: max(1, picked.size // _SAMPLED)].astype(np.float64)
    low, high = _ends(values)
    return min(
        ((float(share * low), float(share * high)) for share in _SHARES[::-1]),
        key=lambda ends: _squared_error(picked, ends),
    )


def percentile(values: Floats) -> Range:
    """All but one value in 10,000 at each end."""
    low, high = np.quantile(values.astype(np.float64), [_LEFT_OUT, 1 - _LEFT_OUT])
    return min(float(low), 0.0), max(float(high), 0.0)


def _ends(values: Floats) -> Range:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def _squared_error(values: NDArray[np.float64], ends: Range) -> float:
    scale = max((ends[1] - ends[0]) / 255, 1e-30)
    cut = np.clip(values, *ends)
    return float(np.square(np.round(cut / scale) * scale - values).sum())


REACHES = {"margin": with_margin, "least-error": least_error, "percentile": percentile}
"""By name; "margin" is the default of every export."""
