"""A physical batch of the size and kind that steps will see, and a part of it, by an engine."""

from __future__ import annotations

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import leaves, taken
from dpsgd_torch.gradients.capture import mixing
from dpsgd_torch.gradients.rehearsal.passes import Passes, rows
from dpsgd_torch.gradients.vectors import PerExample, Vectors

_REAL = "of the first real examples"
_PART = 8  # of the rows one in so many is summed by autograd as well, and so many at least


def try_real(passes: Passes, engine: PerExample, data: Batch, spare: Batch, size: int) -> None:
    """The first ``size`` rows, whole and in part.

    * The first row and the last have the gradients they have alone, the last in the part as well.
    * The part's last row stays what it is beside others; where something is drawn at random, the
      part is summed under real draws as well.
    * The sum check: the rows of the part, taken from the whole, add up to autograd's gradient of
      the part by itself; the others would show if they mattered.
    * Where passes go through half precision, the part's rows add up to autograd's gradient of the
      whole, weighted: the same factors, in half; and exactly (``Passes``) to that of the part.

    Args:
        spare: a made-up example.

    Raises:
        ModelError: an example's vector is not its gradient.
    """
    batch: Batch = taken(data, slice(size))
    whole = passes.engine(engine, batch, _REAL, frozen=True)
    finite = torch.isfinite(whole.norms)  # the others count as zero in a step
    exactly = passes.goes_exactly(batch)
    at = _part(finite.cpu()).to(passes.device)
    factors = _factors(len(at), powers=passes.oracle.in_half).to(whole.norms)
    if exactly:
        if len(at):
            _summed_in_half(passes, whole, batch, at, factors)
        for i in sorted({0, size - 1}):
            passes.refuse_wrong_norm(whole, i)
        whole = passes.engine(engine, batch, _REAL, exactly=True)
    for i in sorted({0, size - 1}):
        other = _filled(batch, spare)
        passes.refuse_not_alone(engine, whole, i, batch, other, _REAL, exactly=exactly)
    if len(at) == 0:
        return
    part = rows(batch, at)
    _part_alone(passes, engine, part, spare, factors)
    _summed(passes, whole, batch, part, at, factors, exactly=exactly)


def _summed_in_half(
    passes: Passes, whole: Vectors, batch: Batch, at: torch.Tensor, factors: torch.Tensor
) -> None:
    scattered = torch.zeros_like(whole.norms)
    scattered[at] = factors
    total, scale = passes.summed(whole, scattered)
    reference = passes.plain(batch, _REAL, frozen=True, factors=scattered)
    passes.refuse_wrong_sum(reference, total, scale)


def _summed(
    passes: Passes,
    whole: Vectors,
    batch: Batch,
    part: Batch,
    at: torch.Tensor,
    factors: torch.Tensor,
    *,
    exactly: bool,
) -> None:
    scattered = torch.zeros_like(whole.norms)
    scattered[at] = factors
    total, scale = passes.summed(whole, scattered)
    reference = passes.plain(part, _REAL, frozen=True, exactly=exactly, factors=factors)
    if passes.oracle.differing(reference, total, scale, exact=exactly):
        reference = passes.plain(batch, _REAL, frozen=True, exactly=exactly, factors=scattered)
        passes.refuse_wrong_sum(reference, total, scale, exactly=exactly)
        raise mixing(f"model: in a batch of {len(scattered)},")


def _part_alone(
    passes: Passes, engine: PerExample, part: Batch, spare: Batch, factors: torch.Tensor
) -> None:
    last = len(factors) - 1
    other = _filled(part, spare)
    vectors = passes.engine(engine, part, _REAL)
    passes.refuse_influence(engine, vectors, last, part, other, _REAL)
    if passes.drew:
        _with_real_draws(passes, vectors, part, spare, factors)
        vectors = passes.engine(engine, part, _REAL, frozen=True)
    passes.refuse_not_alone(engine, vectors, last, part, other, _REAL)


def _filled(batch: Batch, spare: Batch) -> Batch:
    """So many rows, each the spare one."""
    other = rows(batch, slice(None))
    for tensor, made in zip(leaves(other), leaves(spare), strict=True):
        tensor[:] = made[0]
    return other


def _with_real_draws(
    passes: Passes, vectors: Vectors, batch: Batch, spare: Batch, factors: torch.Tensor
) -> None:
    """Some rows have weight 0, and in autograd's pass are others: no vector may hold them."""
    size = len(factors)
    factors = factors.clone()
    factors[::_PART] = 0.0
    total, scale = passes.summed(vectors, factors)
    other = rows(batch, slice(size))
    for tensor, made in zip(leaves(other), leaves(spare), strict=True):
        tensor[::_PART] = made[0]
    reference = passes.plain(other, _REAL, frozen=False, factors=factors)
    if passes.oracle.differing(reference, total, scale):
        reference = passes.plain(batch, _REAL, frozen=False, factors=factors)
        passes.refuse_wrong_sum(reference, total, scale)
        raise mixing(f"model: in a batch of {size},")


def _part(finite: torch.Tensor) -> torch.Tensor:
    """Finite rows spread over the batch, the first and the last among them, in order."""
    rows = finite.nonzero()[:, 0]
    inner = rows[1:-1]
    order = torch.randperm(len(inner), generator=torch.Generator().manual_seed(2))
    inner = inner[order[: max(_PART, len(rows) // _PART) - 2]]
    return torch.cat([rows[:1], inner.sort().values, rows[1:][-1:]])


def _factors(count: int, *, powers: bool) -> torch.Tensor:
    """Between ½ and 1½; of powers of 2, by which half precision rounds alike."""
    drawn = torch.rand(count, generator=torch.Generator().manual_seed(1)) + 0.5
    return torch.exp2(torch.floor(2 * drawn) - 1) if powers else drawn
