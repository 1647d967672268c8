"""Made-up colour pictures: soft-edged shapes on a plane, painted over each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Canvas:
    """A square colour picture, (3, side, side); x and y go from −1 to 1, y downwards."""

    def __init__(
        self, side: int, rng: np.random.Generator, hue: tuple[float, float] = (0, 1)
    ) -> None:
        self.rng = rng
        at = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
        self.x, self.y = np.broadcast_arrays(at[None, :], at[:, None])
        self._edge = np.float32(side / 2)
        shade = rng.uniform(-0.1, 0.1, (3, 2, 1, 1)).astype(np.float32)
        self.picture: Floats = self.colour(hue) + shade[:, 0] * self.x + shade[:, 1] * self.y

    def colour(self, hue: tuple[float, float] = (0, 1)) -> Floats:
        """One whose hue lies between two, as (3, 1, 1); 0 and 1 are red, 1/3 green, 2/3 blue."""
        around = self.rng.uniform(*hue) - np.array([0, 1, 2]).reshape(3, 1, 1) / 3
        tint = 0.5 + 0.5 * np.cos(2 * np.pi * around)
        light, grey = self.rng.uniform(0.3, 1.0), self.rng.uniform(0, 0.5)
        return np.asarray(light * (grey + (1 - grey) * tint), np.float32)

    def turned(self, x: float, y: float, angle: float) -> tuple[Floats, Floats]:
        """Coordinates around a point, of a plane turned by an angle."""
        a, b = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = self.x - np.float32(x), self.y - np.float32(y)
        return a * u + b * v, a * v - b * u

    def paint(self, distance: Floats, colour: Floats) -> None:
        """Cover where ``distance`` to a shape's edge is negative, with an edge one pixel wide."""
        cover = np.clip(0.5 - distance * self._edge, 0, 1)
        self.picture += cover * (colour - self.picture)

    def ellipse(self, x: float, y: float, wide: float, tall: float, angle: float) -> Floats:
        """About the distance to its edge, negative inside."""
        u, v = self.turned(x, y, angle)
        far = np.sqrt((u / np.float32(wide)) ** 2 + (v / np.float32(tall)) ** 2)
        return np.asarray((far - 1) * np.float32(min(wide, tall)))

    def box(self, x: float, y: float, wide: float, tall: float, angle: float) -> Floats:
        """The same of a rectangle, by half its sides."""
        u, v = self.turned(x, y, angle)
        return np.maximum(np.abs(u) - np.float32(wide), np.abs(v) - np.float32(tall))

    def finished(self, grain: float) -> Floats:
        """(3, side, side) in [0, 1], with as much noise."""
        noise = self.rng.standard_normal(self.picture.shape, dtype=np.float32)
        return np.clip(self.picture + np.float32(grain) * noise, 0, 1)
