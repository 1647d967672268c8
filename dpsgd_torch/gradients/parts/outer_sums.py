"""Weighted sums over examples of outer products: one product, in float32 where that is shown to do.

A float64 product costs twice a float32 one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch

from dpsgd_torch.gradients.parts.pieces import pieces
from dpsgd_torch.gradients.parts.tracing import step_of

_PROBES = 8
_SAFETY = 100.0  # on the square of the error: see ``add_outer``
_STEPS = 4096  # rows that one float32 product adds up


def add_outer(
    total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factors: torch.Tensor, within: float
) -> float:
    """Add S* = Σ_i factor_i Σ_t a[i, t] ⊗ b[i, t] to ``total`` (p, d), float64.

    Why the sum stays private although it may be rounded in float32:

    * The exact sum S* moves by at most C′ between neighbours, where C′ = C − margin is what norms
      were clipped to. What is released is S = S* + E, so it moves by at most C′ + |E| + |E′|, for
      either neighbour's own rounding error: within C while 2 × ``within`` ≤ margin.
    * E is measured, not assumed. For a standard normal u, E[|E u|²] = |E|² (Frobenius). With 8 of
      them, |S U − Σ factor a (b · U)|² / 8, all in float64, is |E|² times a weighted mean of
      χ² of 8 degrees. Where E is of rank one, which is the worst, that is below 1/100 of |E|² with
      probability 1e-7; a rounding error is spread over many directions, and of two of equal size
      it is 4e-14, of four 8e-27. So 100 × the measured square is taken for |E|².
    * Where that is more than ``within``², the float32 product is thrown away for a float64 one:
      after TF32, autocast, or a kernel at fault just as after terms that cancel.
    * The u are the same in every call, so a step that is run again gives the same sum; they are
      drawn from a generator of their own, which no data has seen.

    Args:
        within: L2 norm of the error that is allowed; 0 for float64 throughout.

    Returns:
        A bound on the square of the error, 0 after a float64 product.
    """
    if not (a.shape[0] and a.shape[1] and total.numel()):
        return 0.0
    single = single_sum(a, b, factors, within)
    if single is not None:
        total += single[0]
        return single[1]
    with torch.autocast(a.device.type, enabled=False):
        for x, y, by in _widened(a, b, factors):
            total.addmm_((x * by[:, None]).T, y)
    return 0.0


def _pays(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a float32 product and its probes take less than a float64 product."""
    rows, p, d = a.shape[0] * a.shape[1], a.shape[2], b.shape[2]
    both = a.dtype == b.dtype == torch.float32
    return both and rows * p * d > 7 * _PROBES * (rows * (p + d) + p * d)


def single_sum(
    a: torch.Tensor, b: torch.Tensor, factors: torch.Tensor, within: float
) -> tuple[torch.Tensor, float] | None:
    """The float32 product (p, d) and its error's square, where it pays and is good enough."""
    measured = measured_sum(a, b, factors) if within > 0 else None
    if measured is None:
        return None
    found, error = measured[0], float(measured[1])
    return (found, error) if error <= within**2 else None  # NaN is not


def measured_sum(
    a: torch.Tensor, b: torch.Tensor, factors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The float32 product (p, d) and its error's square, read by nobody yet, where it pays."""
    if not (a.shape[0] and a.shape[1] and _pays(a, b)):
        return None
    scale, narrow = factors.float()[:, None, None], a.shape[2] < b.shape[2]
    found: torch.Tensor | None = None
    size = step_of(len(a), max(1, _STEPS // a.shape[1]))
    for start in range(0, len(a), size):
        at = slice(start, start + size)
        left = a[at] * scale[at] if narrow else a[at]
        right = b[at] if narrow else b[at] * scale[at]
        product = left.flatten(0, 1).T @ right.flatten(0, 1)
        found = product if found is None else found.double().add_(product)
    assert found is not None
    return found, _SAFETY * _measured(found, a, b, factors)


def _measured(
    found: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    """The mean of |(S − S*) u|² over the probes u, in float64."""
    probes = _probes(b.shape[2], str(b.device))
    off = found.new_zeros(_PROBES, found.shape[0], dtype=torch.float64)
    with torch.autocast(a.device.type, enabled=False):
        for x, y, by in _widened(a, b, factors, _PROBES):
            off.addmm_((probes @ y.T) * by, x)  # a few rows first: a third of the time of columns
        for at in pieces(len(found), found.shape[1], found.device):
            off[:, at] -= probes @ found[at].double().T
    return off.square().sum() / _PROBES


def _widened(
    a: torch.Tensor, b: torch.Tensor, factors: torch.Tensor, height: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(steps, p), (steps, d) and the factor of each step, in float64, some at a time.

    ``height``: of what is added up at each, p unless told.
    """
    steps, p, d = *a.shape[1:], b.shape[2]
    each = (4 if height is None else 1) * steps * (p + d)
    least = 2 * (height or p) * d // (p + d)  # so that the total is not what is read most
    for at in pieces(len(a), each, a.device, least=-(-least // steps)):
        by = factors[at, None].expand(-1, steps).flatten()
        yield a[at].double().flatten(0, 1), b[at].double().flatten(0, 1), by


@lru_cache(maxsize=64)
def _probes(size: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0x5EED0F9A)
    drawn = torch.randn(_PROBES, size, dtype=torch.float64, generator=generator)
    return drawn.to(device)
