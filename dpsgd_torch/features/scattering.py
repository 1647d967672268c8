"""Scattering transform: moduli of wavelets, low-passed; nothing in it is learnt.

Order 0 is x ⋆ φ, order 1 |x ⋆ ψ₁| ⋆ φ, order 2 ||x ⋆ ψ₁| ⋆ ψ₂| ⋆ φ, for each pair of a scale j and
one of L angles, ψ₂ coarser than ψ₁ [Bruna, Mallat 2013, Sec. 2]. Each image is taken by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

_SIGMA, _XI = 0.8, 3 * math.pi / 4  # of ψ at the finest scale [Bruna, Mallat 2013, Sec. 2.1]
_PERIODS = 2  # of the padded grid, to either side, whose tails are added
_AT_ONCE = 50  # images: about 20 MB


class Scattering:
    """(n, 1, side, side) → (n, paths, side / 2^scales, side / 2^scales), float32.

    Morlet wavelets of ``angles`` angles and ``scales`` scales; the image is padded by reflection.
    Side 28 with two scales and eight angles gives 81 paths of 7×7.

    >>> Scattering(side=8)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 81, 2, 2])
    """

    def __init__(self, *, side: int, scales: int = 2, angles: int = 8) -> None:
        self.side, self.scales, self.angles = side, scales, angles
        self.step = 2**scales
        self.padded = (side // self.step + 2) * self.step
        self.before = (self.padded - side) // 2
        wavelets = [
            np.stack([_morlet(self.padded, j, k, angles) for k in range(angles)])
            for j in range(scales)
        ]
        spectra = [np.fft.fft2(each).real for each in wavelets]
        self._spectra = [torch.from_numpy(each).float() for each in spectra]
        self._low_pass = [
            torch.from_numpy(_low_pass(self.padded, j, scales)).float() for j in range(scales)
        ]

    @property
    def paths(self) -> int:
        """How many there are of order 0, 1 and 2 together."""
        return 1 + self.angles * self.scales + self.angles**2 * math.comb(self.scales, 2)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._batch(part) for part in images.split(_AT_ONCE)])

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        after = self.padded - self.side - self.before
        pad = (self.before, after, self.before, after)
        x = torch.nn.functional.pad(images.float(), pad, mode="reflect")
        return torch.cat(list(self._orders(x)), dim=1)

    def _orders(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of (n, 1, padded, padded): all of order 0, then 1, then 2."""
        yield self._smooth(x, 0)
        spectrum, second = torch.fft.fft2(x), []
        for j in range(self.scales):
            first = self._modulus(spectrum * self._spectra[j], j)
            yield self._smooth(first, j)
            if j + 1 < self.scales:
                second.append((torch.fft.fft2(first), j))
        for each, j in second:
            for k in range(self.angles):
                yield self._coarser(each[:, k : k + 1], j)

    def _coarser(self, spectrum: torch.Tensor, j: int) -> torch.Tensor:
        """Order 2 of one wavelet of scale j: all coarser scales and angles."""
        parts = []
        for after in range(j + 1, self.scales):
            wavelet = _folded(self._spectra[after], 2**j)
            found = self._modulus(spectrum * wavelet, after, already=j)
            parts.append(self._smooth(found, after))
        return torch.cat(parts, dim=1)

    @staticmethod
    def _modulus(product: torch.Tensor, j: int, already: int = 0) -> torch.Tensor:
        factor = 2 ** (j - already)
        return torch.fft.ifft2(_folded(product, factor)).abs() / factor**2

    def _smooth(self, found: torch.Tensor, j: int) -> torch.Tensor:
        """⋆ φ, sampled at every 2^scales-th pixel; φ is a product of one row and one column."""
        rows = self._low_pass[j][1:-1]
        return rows @ found @ rows.T


def _morlet(size: int, j: int, k: int, angles: int) -> NDArray[np.complex128]:
    """ψ of scale j and angle k on a periodic (size, size) grid: a wave under a Gaussian, mean 0."""
    angle = (angles // 2 - 1 - k) * math.pi / angles
    sigma, xi, slant = _SIGMA * 2**j, _XI / 2**j, 4 / angles
    wave = _gabor(size, sigma, angle, xi, slant)
    bell = _gabor(size, sigma, angle, 0.0, slant)
    return wave - wave.sum() / bell.sum() * bell


def _gabor(
    size: int, sigma: float, angle: float, xi: float, slant: float
) -> NDArray[np.complex128]:
    """exp(i ξ u) exp(−(u² + slant² v²) / 2σ²), of integral 1 for ξ = 0; u lies along the angle."""
    found = np.zeros((size, size), np.complex128)
    reach = range(-_PERIODS, _PERIODS + 1)
    for y, x in np.ndindex(len(reach), len(reach)):
        row, column = np.mgrid[:size, :size]
        row, column = row + reach[y] * size, column + reach[x] * size
        u = row * math.cos(angle) + column * math.sin(angle)
        v = -row * math.sin(angle) + column * math.cos(angle)
        found += np.exp(-(u**2 + (slant * v) ** 2) / (2 * sigma**2) + 1j * xi * u)
    return found * (slant / (2 * math.pi * sigma**2))


def _low_pass(padded: int, j: int, scales: int) -> NDArray[np.float64]:
    """(outputs, inputs) Gaussian weights: of pixels 2^j apart, about those 2^scales apart."""
    sigma, size = _SIGMA * 2 ** (scales - 1), padded // 2**j
    reach = np.arange(-_PERIODS, _PERIODS + 1) * padded
    centres = np.arange(padded // 2**scales) * 2**scales
    apart = centres[:, None, None] - 2**j * np.arange(size)[None, :, None] + reach
    bell = np.exp(-(apart**2) / (2 * sigma**2)).sum(axis=2)
    weights: NDArray[np.float64] = 2**j * bell / (math.sqrt(2 * math.pi) * sigma)
    return weights


def _folded(spectrum: torch.Tensor, factor: int) -> torch.Tensor:
    """The spectrum of every ``factor``-th pixel, times factor²: aliases added up."""
    if factor == 1:
        return spectrum
    down = functools.reduce(torch.add, spectrum.chunk(factor, dim=-2))
    return functools.reduce(torch.add, down.chunk(factor, dim=-1))  # 10 × as fast as one sum
