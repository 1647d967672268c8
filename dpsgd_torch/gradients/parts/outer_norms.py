"""Squared norms of sums of outer products, never too small by more than is told.

Σ_t a_t ⊗ b_t has the squared norm Σ_{t,s} (a_t · a_s)(b_t · b_s), from Gram matrices of T × T
[Goodfellow 2015; Li et al. 2022]. Its terms may cancel: Gram matrices of float32 products do where
their own bound on what is then lost is small, else float64's. Written out in float32, a piece at a
time, the same norm is off by rounding in the norm and not in its square, a bound that is small
(γ_T √T against 1): that way is taken where it multiplies less. What cancels is written out again in
float64.
"""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.pieces import (
    LEAST,
    U64,
    exact_float32,
    pieces,
    relative32,
    squares,
)
from dpsgd_torch.gradients.parts.tracing import any_of, is_traced

_AT_ONCE = 128  # products that are added up in float32
LOOSE = 2e-4  # of a squared norm: what may be told too much before the row is done in float64


def outer_squares(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows,) squared norms of Σ_t a[i, t] ⊗ b[i, t] in float64, and what each lacks at most."""
    count, steps, p, d = *a.shape, b.shape[2]
    if not (count and steps and p and d):
        nothing = a.new_zeros(count, dtype=torch.float64)
        return nothing, nothing
    if steps == 1:
        (of_a, off_a), (of_b, off_b) = squares(a), squares(b)
        squared = of_a * of_b
        return squared, of_a * off_b + off_a * (of_b + off_b) + squared * (4 * U64)
    # of rows that float32 would leave in doubt a traced pass could do none again
    double = a.dtype == torch.float64 or not exact_float32(a.device) or is_traced()
    by_grams = 2 * p * d > (2 if double else 3) * steps * (p + d)
    if double:
        squared, error = (_by_grams if by_grams else _by_products64)(a, b)
    else:
        squared, error = (_by_grams32 if by_grams else _by_products32)(a, b)
    for exactly in (_by_grams,) * (by_grams and not double) + (_by_products64,):
        again = ~(error <= LOOSE * squared) | ~torch.isfinite(squared)
        if not any_of(again):
            break
        squared[again], error[again] = exactly(a[again], b[again])
    return squared, error


def _by_grams32(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrices of float32 products, added up and multiplied in float64.

    An entry of A is off by ε_A ≤ γ |a_t||a_s|, B alike, Σ AB by Σ ε_A |B| + |A| ε_B + ε_A ε_B.
    Where steps are nearly orthogonal in both factors, that is little more than γ times the sum.
    """
    squared = a.new_empty(len(a), dtype=torch.float64)
    error = torch.empty_like(squared)
    steps, p, d = *a.shape[1:], b.shape[2]
    off_a, off_b = (1.001 * relative32(min(n, _AT_ONCE) + 4) for n in (p, d))
    for at in pieces(len(a), steps * (p + d) // 2 + 3 * steps**2, a.device):
        of_a, of_b = _gram32(a[at]), _gram32(b[at])
        squared[at] = _paired(of_a, of_b).clamp(min=0)
        size_a, size_b = (
            (gram.diagonal(dim1=1, dim2=2) * (1 + off) + n * LEAST).sqrt()
            for gram, off, n in ((of_a, off_a, p), (of_b, off_b, d))
        )
        both = torch.linalg.vecdot(size_a, size_b).square() * (off_a * off_b + steps**2 * U64)
        for sizes, gram, off, n in (
            (size_a, of_b.abs_(), off_a, p),
            (size_b, of_a.abs_(), off_b, d),
        ):
            seen = (gram @ sizes[:, :, None])[:, :, 0]
            both += off * torch.linalg.vecdot(seen, sizes) + n * LEAST * gram.sum((1, 2))
        error[at] = 1.001 * both
    return squared, error


def _gram32(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor | None = None
    for start in range(0, values.shape[2], _AT_ONCE):
        some = values[:, :, start : start + _AT_ONCE]
        product = some @ some.mT
        total = product.double() if total is None else total.add_(product)
    assert total is not None
    return total


def _by_grams(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, half of the pairs where there are many."""
    squared = a.new_empty(len(a), dtype=torch.float64)
    sizes = torch.empty_like(squared)
    steps, p, d = *a.shape[1:], b.shape[2]
    halves = [(0, steps)] if steps < 96 else [(0, steps // 2), (steps // 2, steps)]
    for at in pieces(len(a), steps * (p + d) + steps**2, a.device):
        x, y = a[at].double(), b[at].double()
        total = x.new_zeros(len(x))
        for start, stop in halves:
            late_x, late_y = x[:, start:stop], y[:, start:stop]
            total += _paired(late_x @ late_x.mT, late_y @ late_y.mT)
            if start:
                total += 2 * _paired(late_x @ x[:, :start].mT, late_y @ y[:, :start].mT)
        squared[at] = total.clamp(min=0)
        sizes[at] = _sizes(x, y)
    return squared, sizes.square() * ((p + d + 2 * steps + 4) * U64)


def _by_products32(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _by_products(a, b, torch.float32)


def _by_products64(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _by_products(a, b, torch.float64)


def _by_products(
    a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Written out: |G| ≤ |fl(G)| + γ_T Σ_t |a_t||b_t| + what was too small for float32."""
    squared = a.new_empty(len(a), dtype=torch.float64)
    sizes, error = torch.empty_like(squared), torch.empty_like(squared)
    steps, p, d = *a.shape[1:], b.shape[2]
    for at in pieces(len(a), p * d, a.device):
        x, y = a[at].to(dtype), b[at].to(dtype)
        squared[at], error[at] = squares(x.mT @ y)
        sizes[at] = _sizes(x.double(), y.double())
    single = dtype == torch.float32
    off = sizes * (relative32(steps + 1) if single else 2 * (steps + 1) * U64)
    if single:
        off += LEAST * steps * (p * d) ** 0.5
    return squared, error + 2 * (squared + error).sqrt() * off + off.square()


def _paired(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(left.flatten(1), right.flatten(1))


def _sizes(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Σ_t |a_t||b_t|, of float64."""
    return torch.linalg.vecdot(torch.linalg.vector_norm(a, dim=2), b.norm(dim=2))
