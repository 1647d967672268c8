"""The pair of distributions behind sampled Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from accountant.dominating_pairs.pairs import (
    GOAL,
    MARGIN,
    MOST_POINTS,
    NO_CELLS,
    UNBOUNDED,
    Array,
    Cells,
    Complex,
    Nodes,
    Pair,
    Panels,
    TooFine,
    Variation,
    log_sum,
)

REACH = 9.5  # standard deviations: a Gaussian density beyond it is below 1e-20 of its peak
_NEGLIGIBLE = 50.0  # e-folds below the largest weight
_MOST_COARSE = 150_000
_SHRINK = 0.7 ** np.arange(28.0)


@dataclass(frozen=True)
class Mixture:
    r"""Gaussian noise on a sum that holds j of a person's records with probability b_j.

    In units of the noise Q = N(0, 1) and P = Σ_j b_j N(jμ, 1), or the two exchanged. Poisson
    sampling of one record is b = (1 − q, q) [Zhu, Dong, Wang 2022, Theorem 11]; of the k records
    of a group b is binomial, the worst case being that all point the same way.

    The outcome z runs over the line and integrands are analytic in |Im z| < π/(2kμ), so the
    trapezoidal rule of step h misses at most 2 N/(exp(2πa/h) − 1), where N is the integral of
    the integrand's modulus along Im z = ±a [Trefethen, Weideman 2014, Theorem 5.1]; a and h are
    chosen so that this is below GOAL.
    """

    log_weights: tuple[float, ...]
    spacing: float
    exchanged: bool = False

    @property
    def most(self) -> int:
        """k, the most records."""
        return len(self.log_weights) - 1

    @property
    def _strip(self) -> float:
        return min(1.4 / (self.spacing * self.most), 3.0)

    def _log_terms(self, z: Complex) -> Complex:
        """log b_j dN(jμ, 1)/dN(0, 1) at z, of shape (k + 1, z.size)."""
        j = np.arange(self.most + 1)
        middle = j**2 * self.spacing / 2 - np.array(self.log_weights) / self.spacing
        return self.spacing * (np.multiply.outer(j, z) - middle[:, None])

    def curve(self, z: Complex) -> tuple[Complex, Complex]:
        """log density under Q, and privacy loss, at each outcome."""
        if self.most == 1:  # the common case, without the axis
            exponent = self.spacing * (z - self.spacing / 2)
            loss = log_mixture(exponent, *(math.exp(w) for w in self.log_weights))
        else:
            terms = self._log_terms(z)
            shift = np.maximum(terms.real.max(axis=0), 0.0)
            j = np.arange(1, self.most + 1)[:, None]
            exponents = self.spacing * (j * z - j**2 * self.spacing / 2)
            change = np.exp(self.log_weights[1:]) @ np.expm1(np.where(shift > 0, 0, exponents))
            apart = np.exp(terms - terms.real.max(axis=0)).sum(axis=0)
            loss = _log1p_or(change, terms.real.max(axis=0) + np.log(apart), shift > 0)
        log_q = -z * z / 2 - 0.5 * math.log(2 * math.pi)
        return (log_q + loss, -loss) if self.exchanged else (log_q, loss)

    def _log_slope(self, z: Array) -> Array:
        """log |dL/dz|, where dL/dz is μ times the expected number of records, given z."""
        terms = self._log_terms(z)
        held = terms[1:] + np.log(np.arange(1, self.most + 1))[:, None]
        log_held = log_sum(held) - log_sum(terms)
        return np.asarray(math.log(self.spacing) + log_held)

    def _ends(self, tilt: float) -> tuple[float, float]:
        """Outside, the tilted density falls at least as fast as a Gaussian from REACH on."""
        width = self.spacing * self.most
        far = REACH + 2 * width  # the square of a small loss is largest around 2kμ
        if not self.exchanged:
            return -REACH, REACH + max(1 + tilt, 2.0) * width
        low = -REACH
        for _ in range(20):  # −z > REACH + tilt·slope(z) from there on to the left
            further = -REACH - tilt * math.exp(float(self._log_slope(np.array([low]))[0]))
            if further > low - 0.1:
                break
            low = further
        return min(low, further) - 0.5, far

    def _lattice(self, tilt: float, step: float) -> tuple[Array, Array, Array, Array]:
        """Multiples of step with log Q, loss and log weight there."""
        low, high = self._ends(tilt)
        if not high - low <= MOST_POINTS * step:
            raise TooFine
        z = step * np.arange(math.floor(low / step), math.ceil(high / step) + 1)
        log_q, loss = self.curve(z)
        weight = log_q + (1 + tilt) * loss
        core = REACH + 2 * self.spacing * self.most
        keep = (z < core) | (weight > weight.max() - _NEGLIGIBLE)
        return z[keep], log_q[keep], loss[keep], weight[keep]

    def coarse(self, tilt: float) -> Nodes:
        step = min(0.25, self._strip / 4)
        if self._ends(tilt)[1] > _MOST_COARSE * step:
            raise TooFine
        _, log_q, loss, _ = self._lattice(tilt, step)
        return Nodes(log_q + math.log(step), loss)

    def nodes(self, tilt: float, reach: float) -> Nodes:
        coarse = min(0.25, self._strip / 4)
        z, _, _, weight = self._lattice(tilt, coarse)
        z = z[weight > weight.max() - 2 * _NEGLIGIBLE]
        total = float(log_sum(weight))
        goal = GOAL if reach else GOAL**2
        best = 0.0
        for shrink in _SHRINK:
            a = self._strip * shrink
            log_q, loss = self.curve(z + 1j * a)
            modulus = (log_q + (1 + tilt) * loss).real + reach * np.abs(loss.imag)
            growth = max(float(log_sum(modulus)) - total, 0.0) + MARGIN
            step = 2 * math.pi * a / (growth + math.log(2 / goal))
            if step < best / 2:
                break
            best = max(best, step)
        _, log_q, loss, _ = self._lattice(tilt, min(best, 0.5))
        return Nodes(log_q + math.log(min(best, 0.5)), loss)

    def variation(self, tilt: float) -> Variation:
        """Of the tilted density over |dL/dz|, on all outcomes and on those beyond each, rightwards.

        It is summed over a lattice so fine that what a cell hides at a turning point is below a
        twentieth of the value there, and raised by a quarter.
        """
        bend = 1 + (2 + tilt) * ((self.spacing * self.most) ** 2) / 4
        step = min(0.1, math.sqrt(0.4 / bend / (self.most + 1)))
        low, high = self._ends(tilt)
        if high - low > MOST_POINTS * step:
            return UNBOUNDED
        z = np.arange(low - self.spacing * self.most, high + step, step)
        log_q, loss = self.curve(z)
        weight = log_q + (1 + tilt) * loss
        weight -= log_sum(weight) + math.log(step)
        ratio = weight - self._log_slope(z)
        peak = float(ratio.max())
        edge = np.exp(ratio - peak)
        varied = np.append(np.cumsum(np.abs(np.diff(edge))[::-1])[::-1], 0.0)
        cells = np.exp(np.minimum(weight[1:], weight[:-1]) - bend * step**2 / 8) * step
        mass = np.append(np.cumsum(cells[::-1])[::-1], 0.0)
        log_v = peak + np.log(1.25 * np.maximum(varied + edge, 1e-300))
        log_v[0] = peak + math.log(1.25 * varied[0])
        mass[0] = 1.0
        return Variation(mass, log_v)

    def cells(self, tilt: float) -> Cells:
        """Between neighbouring outcomes of a lattice of step h.

        The log of the tilted density bends upwards by at most c = (1 + tilt)(kμ)²/4, so between
        two outcomes it stays above the lesser of its values there, less c h²/8.
        """
        bend = (1 + tilt) * (self.spacing * self.most) ** 2 / 4
        step = 0.25 / math.sqrt(1 + bend)
        low, high = self._ends(tilt)
        if high - low > _MOST_COARSE * step:
            return NO_CELLS
        z, _, loss, weight = self._lattice(tilt, step)
        total = self.nodes(tilt, 0.0)
        log_total = float(log_sum(total.log_q + (1 + tilt) * total.loss))
        log_mass = np.minimum(weight[1:], weight[:-1]) - bend * step**2 / 8 - log_total
        mass = step * np.exp(log_mass) * (1 - 1e-9)
        mass[np.diff(z) > 1.5 * step] = 0.0  # where the lattice was thinned out
        loss = np.sort(loss)
        order = slice(None, None, -1 if self.exchanged else 1)
        return Cells(mass[order], loss[:-1], loss[1:])

    def log_beyond(self, z: float) -> float:
        """log P(outcome > z), where losses are large, rounded up."""
        j = np.arange(self.most + 1)
        tails = np.array(self.log_weights) + log_ndtr(j * self.spacing - z)
        value = float(log_sum(tails))
        return value + 1e-14 * (1 + abs(value))

    def without_tail(self, log_mass: float) -> Pair:
        """Where one outcome in many shows a record, losses have no moments worth a contour."""
        if self.exchanged:  # bounded
            return self
        none, widest = np.empty(0), min(0.5, 0.7 / (self.spacing * self.most))
        whole = Panels(
            (self.curve,), self._ends, (none, none), widest=widest, log_beyond=self.log_beyond
        )
        return whole.without_tail(log_mass)

    def most_loss(self) -> tuple[float, float]:
        """Without a record the loss stays below −log b_0, which it comes near but never reaches."""
        return (-self.log_weights[0] if self.exchanged else math.inf), -math.inf


def log_mixture(exponent: Complex, rest: float, q: float) -> Complex:
    """log(rest + q e^x), exact for small x, finite for large, in the strip |Im x| < π/2."""
    shift = np.maximum(exponent.real, 0.0)
    apart = shift + np.log(rest * np.exp(-shift) + q * np.exp(exponent - shift))
    change = q * np.expm1(np.where(shift < 600, exponent, 0))
    return _log1p_or(change, apart, shift >= 600)


def _log1p_or(change: Complex, apart: Complex, far: NDArray[np.bool_]) -> Complex:
    """log(1 + change) where the change is small, else what was found apart."""
    small = ~far & (np.abs(change) < 0.5)
    return np.where(small, np.log1p(np.where(small, change, 0)), apart)
