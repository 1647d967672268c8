"""Gaussian noise in float64, of every size a Gaussian has, on a grid that shows nothing else.

Three things a private release must not inherit from a generator of floats:

* A tail that ends. Made from 24-bit uniforms no number lies beyond 5.77 deviations, from 53-bit
  ones none beyond 8.57; where a record shifts a coordinate, what lies outside the shifted range
  proves it was there, whatever ε says. Here what lies far out is drawn again from the tail's own
  law, by memorylessness bit after bit, so that no finite limit is left to be charged to δ.
* A lattice. The values of a generator are few where they are told in full: which of two sums a
  release hides is then read off [Mironov 2012; Jin, McMurtry, Rubinstein, Ohrimenko 2022]. A
  release is rounded to a public grid, hundreds of thousands of generator values to a grid point,
  before it is rounded to the parameters' own precision.
* Pairs. Numbers made two at a time (Box-Muller) share a radius; numpy's ziggurat makes each alone.

What is left is the generator's own resolution, 2⁻⁵²; a law without any such rest is that of a
discrete Gaussian.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAR = 6.0  # deviations beyond which the tail is drawn anew: two numbers in a billion
_GRID = 2.0**-20  # of the clip norm, over all coordinates together
_COARSE = 2.0**-32  # of the noise's deviation at least: 10⁵ of the generator's numbers a grid point


def fill_normal(rng: np.random.Generator, out: Floats, far: float = FAR) -> None:
    """Fill ``out`` (n,) with independent standard normal numbers.

    The body is numpy's ziggurat, whose largest number is 12.2; beyond ``far`` each is replaced by
    one from the tail's exact law [Marsaglia 1964], which ends nowhere.

    >>> out = np.empty(3)
    >>> fill_normal(np.random.default_rng(0), out)
    >>> out.round(3)
    array([ 0.126, -0.132,  0.64 ])
    """
    rng.standard_normal(out=out)
    if out.size and max(out.max(), -out.min()) > far:
        for i in np.flatnonzero(np.abs(out) > far):
            out[i] = math.copysign(beyond(rng, far), out[i])


def normal(rng: np.random.Generator) -> float:
    """One standard normal number."""
    out = np.empty(1)
    fill_normal(rng, out)
    return float(out[0])


def grid(scale: float, coordinates: int = 1, deviation: float = 0.0) -> float:
    """The step of the grid for a vector that ``scale`` is the sensitivity of: a power of two.

    Rounding to it moves the vector by less than a millionth of ``scale``; or, where noise of a
    ``deviation`` thousands of times as large would show its own lattice on so fine a grid, each
    coordinate by less than a billionth of that.

    >>> grid(1.0, 4) == 2.0**-21, grid(1.0, 4, deviation=2.0**20) == 2.0**-12
    (True, True)
    """
    fine = _power_of_two(scale / math.sqrt(max(coordinates, 1))) * _GRID
    return max(fine, _power_of_two(deviation) * _COARSE) if deviation else fine


def _power_of_two(value: float) -> float:
    """The largest that is not above ``value``."""
    return float(2.0 ** math.floor(math.log2(value)))


def to_grid(value: float, step: float) -> float:
    """``value`` rounded to a multiple of ``step``."""
    return round(value / step) * step


def beyond(rng: np.random.Generator, far: float = FAR) -> float:
    """A standard normal number, given that it is above ``far``: x² = far² + 2E, kept at far / x."""
    while True:
        x = math.sqrt(far * far + 2 * _exponential(rng))
        if rng.random() * x <= far:
            return x


def _exponential(rng: np.random.Generator) -> float:
    """A standard exponential number without a largest one: halvings by coin, the rest by formula.

    E = G ln 2 + F: G counts tails before the first head, F is exponential below ln 2.
    """
    halvings = 0
    while (word := int(rng.integers(2**32))) == 0:
        halvings += 32
    halvings += 32 - word.bit_length()
    return halvings * math.log(2) - math.log1p(-rng.random() / 2)
