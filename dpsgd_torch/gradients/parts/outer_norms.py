"""Squared norms of sums of outer products, never too small by more than is told.

Σ_t a_t ⊗ b_t has the squared norm Σ_{t,s} (a_t · a_s)(b_t · b_s), from Gram matrices of T × T
[Goodfellow 2015; Li et al. 2022]. Its terms may cancel, and in float32 the bound on what is then
lost grows with T × p: Gram matrices are taken in float64. Written out in float32, a piece at a
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
    double = a.dtype == torch.float64 or not exact_float32(a.device)
    if p * d > (1 if double else 2) * steps * (p + d):
        squared, error = _by_grams(a, b)
    else:
        squared, error = _by_products(a, b, torch.float64 if double else torch.float32)
    again = ~(error <= LOOSE * squared) | ~torch.isfinite(squared)
    if again.any():
        squared[again], error[again] = _by_products(a[again], b[again], torch.float64)
    return squared, error


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
