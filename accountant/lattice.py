r"""Discrete Gaussian noise on a vector of integers, between two continuous Gaussians.

In one dimension the privacy loss of the discrete Gaussian is priced as it is, on its atoms. In
more, the loss of neighbours that differ by v ∈ ℤ^d depends on the direction of v, and which is
the worst is not known. But each is within a hair of a continuous Gaussian, for every v at once.

**From above.** Let x ~ N(v, s²) on each coordinate, v an integer, and given x draw the integer y
with P(y | x) = ρ_r(y − x)/ρ_r(ℤ − x), where ρ_r(z) = exp(−z²/(2r²)). By Poisson's summation
formula ρ_r(ℤ − x) = r√(2π) (1 + 2 Σ_{k≥1} exp(−2π²r²k²) cos(2πkx)), within 1 ± η of r√(2π) with
η = 2 Σ exp(−2π²r²k²). So y has probabilities within 1/(1 ± η) of the density of N(v, s² + r²) at
y; and so, within 1/(1 + η) … 1, has the discrete Gaussian of parameter σ = √(s² + r²) around v.
Hence these and those of y differ by a factor of exp(±τ), τ = log((1 + η)/(1 − η)), at most.
Drawing y knows nothing of v: it is post-processing of continuous noise of deviation √(σ² − r²).

**From below.** Conversely the discrete Gaussian plus N(0, r²) has, by completing the square, a
density within a factor of exp(±τ) of N(v, σ² + r²), with η at 1/t² = 1/σ² + 1/r² in place of r².

Coordinates and releases multiply: a factor of exp(±dτ) a release, whichever sample of the records
it is computed on and whatever came before. With P', Q' the post-processed of M,
P(S) ≤ exp(off) P'(S) ≤ exp(off) (exp(ε') Q'(S) + δ') ≤ exp(ε' + 2 off) Q(S) + exp(off) δ',

    δ(ε) ≤ exp(off) δ_M(ε − 2 off),    off = Σ τ over coordinates and releases.

r is chosen so that off is 10⁻¹⁵ a release, r² about 2; what that takes from σ² is the whole gap.
The convolution of lattice Gaussians is [Peikert 2010, Theorem 3.1]; the mechanism, and that its
Rényi curve is at most the continuous one's in any dimension, [Canonne, Kamath, Steinke 2020].
"""

from __future__ import annotations

import math
from dataclasses import replace

from accountant.events import (
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    PoissonSampled,
    Relation,
    ShuffledEpoch,
)

OFF = 1e-15
"""What a release's log probabilities differ by from those of the continuous one, at most."""

_FINE = 4096.0  # cells: beyond, the gap is below 1e-7 of ε also in one dimension, and atoms many


def continuous(event: Event, *, costlier: bool) -> Event | None:
    """The event with continuous noise that costs no less, or no more, but for OFF.

    None where the event is priced as it is.

    >>> step = DiscreteGaussian(noise_multiplier=2.0, sensitivity=1000.0, dimension=25_000)
    >>> continuous(step, costlier=True)
    Gaussian(noise_multiplier=1.9999994079...)
    """
    match event:
        case DiscreteGaussian():
            if event.dimension == 1 and not _FINE < event.deviation < math.inf:
                return None
            return _gaussian(event, costlier)
        case PoissonSampled(event=inner) | FixedSizeSampled(event=inner):
            smooth = continuous(inner, costlier=costlier)
            return replace(event, event=smooth) if isinstance(smooth, Gaussian) else None
        case ShuffledEpoch(event=inner):
            smooth = continuous(inner, costlier=costlier)
            return replace(event, event=smooth) if isinstance(smooth, Gaussian) else None
    return None


def _gaussian(event: DiscreteGaussian, costlier: bool) -> Gaussian:
    """By less noise against the whole sensitivity, or more against what integers attain."""
    square = math.log(8 * event.dimension / OFF) / (2 * math.pi**2) * (1 + 1e-12)  # r², or t²
    variance = event.deviation * event.deviation
    if costlier:
        noise = event.noise_multiplier * math.sqrt(1 - square / variance) * (1 - 1e-15)
        return Gaussian(noise_multiplier=noise, relation=event.relation)
    more, shift = 1 / (1 / square - 1 / variance), attained(event)
    wider = event.sensitivity / shift if shift else math.inf
    noise = event.noise_multiplier * math.sqrt(1 + more / variance) * wider * (1 + 1e-15)
    return Gaussian(noise_multiplier=noise, relation=event.relation)


def attained(event: DiscreteGaussian) -> float:
    """The largest norm, within the sensitivity, of a vector of integers; an even one to replace.

    Every whole number is the sum of four squares. Where a record is replaced, neighbours w and −w
    attain it, and so does the record whose vector is zero, half the way.

    >>> attained(DiscreteGaussian(noise_multiplier=2.0, sensitivity=10.5, dimension=4)) ** 2
    110.0
    """
    halves = 1 if event.relation is Relation.ADD_OR_REMOVE_ONE else 2
    norm = event.sensitivity / halves
    if norm > 2**26:  # integers beyond exceed what a double holds of the square
        return halves * math.floor(norm)
    return halves * (math.sqrt(math.floor(norm**2)) if event.dimension >= 4 else math.floor(norm))
