"""How much is widened to float64 at once, and what every kernel says of rounding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dpsgd_torch.gradients.parts.tracing import is_traced, step_of

U32 = 2.0**-24  # half the distance of neighbours just above 1
U64 = 2.0**-53
LEAST = 1.2e-38  # what a float32 product below the least normal float may lose

_SEGMENT = 16  # squares that are added up in float32
_IN_CACHE = 1 << 18  # values, on the CPU: float64 copies that stay in the cache
_ON_DEVICE = 1 << 26


def real(values: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32: neither norms nor sums are rounded to half.

    Complex ones, of what is made of parameters, stay: they are pulled back to real parameters.
    """
    values = values.detach()
    single = values.dtype in (torch.float32, torch.float64) or values.is_complex()
    return values if single else values.float()


def at_once(device: torch.device) -> int:
    """How many values are worked on at a time."""
    return _IN_CACHE if device.type == "cpu" else _ON_DEVICE


def pieces(count: int, values: int, device: torch.device, least: int = 1) -> Iterator[slice]:
    """Slices over ``count`` rows of so many ``values`` each, ``least`` rows or more in each."""
    size = step_of(count, max(least, at_once(device) // max(1, values), 1))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def relative32(terms: int) -> float:
    """γ_n in float32: by how much of its terms' sizes a sum of so many products may be wrong."""
    return terms * U32 / (1 - terms * U32) if terms * U32 < 0.5 else float("inf")


def exact_float32(device: torch.device) -> bool:
    """Whether float32 products are of float32 values: no TF32, no bfloat16, no autocast.

    Settings that cannot be read count as inexact.
    """
    if torch.is_autocast_enabled(device.type):
        return False
    try:
        if device.type == "cuda":
            return not torch.backends.cuda.matmul.allow_tf32
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # old and new settings were mixed
        return False


def squares(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows,) sums of squares in float64, and by what each may be too small.

    Float32 is squared as it is, a few values at a time, whose sums are added up in float64; what
    may be off by more than that, or is too large or small for it, is widened first; and all where a
    pass is traced, whose compiled loops widen as they read.
    """
    rows = values.flatten(1) if values.ndim > 1 else values[:, None]
    width = rows.shape[1]
    if rows.dtype != torch.float32 or not rows.numel() or is_traced():
        squared = squares64(rows)
        return squared, squared * ((width + 2) * U64)
    even = width - width % _SEGMENT
    squared = torch.linalg.vector_norm(rows[:, even:], dim=1).double().square()
    if even:
        segments = rows[:, :even].unflatten(1, (-1, _SEGMENT))
        squared += torch.linalg.vector_norm(segments, dim=2).double().square().sum(1)
    error = squared * relative32(_SEGMENT + 8) + width * LEAST
    again = ~(error <= 2 * squared * relative32(_SEGMENT + 8)) | ~torch.isfinite(squared)
    if again.any():
        squared[again] = squares64(rows[again])
        error[again] = squared[again] * ((width + 2) * U64)
    return squared, error


def squares64(values: torch.Tensor) -> torch.Tensor:
    """(rows, *) → (rows,) sums of squares in float64, widened in pieces."""
    rows = values.flatten(1) if values.ndim > 1 else values[:, None]
    if is_traced():
        return rows.double().square().sum(1)
    total = rows.new_zeros(len(rows), dtype=torch.float64)
    if not rows.numel():
        return total
    wide = min(rows.shape[1], max(1, at_once(rows.device) // 8))
    for at in pieces(len(rows), 8 * wide, rows.device):
        for start in range(0, rows.shape[1], wide):
            block = rows[at, start : start + wide].double()
            total[at] += torch.linalg.vecdot(block, block)
    return total
