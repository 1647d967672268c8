"""Made-up motions: what a held board feels of movements drawn at random, none of a known gesture.

They carry no class knowledge: how a hand swings, thrusts and circles about random axes, and what
the sensor makes of it, gravity and lever arm included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = "made-up motions about random axes, of no known gesture: no class knowledge"
LIMITS = np.array([4.0] * 3 + [2000.0] * 3)  # g, and degrees a second: where the sensor saturates
_RATE = 119.0  # samples a second
_EARTH = 9.80665  # m/s²
_STEADY = 0.25  # how far repetitions of one motion differ, as a share of it


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One way to move: axes (3,), cycles a second, sizes in degrees and metres, grip in degrees."""

    turned: Floats
    moved: Floats
    other: Floats
    speed: float
    degrees: float
    metres: float
    phase: float
    once: bool
    round: bool
    grip: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Motion:
        """Any axis, 0.5 to 4 cycles a second or one thrust, a line or a circle."""
        return cls(
            turned=_axis(rng),
            moved=_axis(rng),
            other=rng.normal(0, 0.6, 3),
            speed=float(np.exp(rng.uniform(np.log(0.5), np.log(4)))),
            degrees=float(np.exp(rng.uniform(np.log(8), np.log(80)))),
            metres=float(np.exp(rng.uniform(np.log(0.03), np.log(0.3))) * rng.random()),
            phase=float(rng.random()),
            once=bool(rng.random() < 0.4),
            round=bool(rng.random() < 0.3),
            grip=rng.normal(0, 25, 3),
        )

    def recorded(self, rng: np.random.Generator, samples: int = 119) -> Floats:
        """(samples, 6) in g and degrees a second: the motion once more, a little otherwise."""
        t = np.arange(samples) / _RATE
        speed = self.speed * np.exp(rng.normal(0, _STEADY))
        size = np.exp(rng.normal(0, 1.3 * _STEADY))
        phase = 2 * np.pi * (speed * t + self.phase + rng.normal(0, 0.6 * _STEADY))
        there, aside = np.sin(phase), np.cos(phase) * self.round
        if self.once:
            bell = np.exp(-(((t - rng.uniform(0.2, 0.7)) * speed * 1.5) ** 2))
            there, aside = there * bell, aside * bell

        def path(axis: Floats) -> Floats:
            axis = axis + rng.normal(0, 0.5 * _STEADY, 3)
            return np.asarray(size * (axis[:, None] * there + self.other[:, None] * aside))

        drift = rng.uniform(0, 6, (3, 1)) * np.sin(
            2 * np.pi * (rng.uniform(0.3, 1.5, (3, 1)) * t + rng.random((3, 1)))
        )
        held = (self.grip + rng.normal(0, 8, 3))[:, None] + drift
        angles = np.radians(held + self.degrees * path(self.turned))
        return _felt(rng, angles, self.metres * path(self.moved))


def random_motions(count: int, seed: int = 0) -> Floats:
    """(count, 119, 6) in g and degrees a second, each of another motion; the same for one seed.

    >>> random_motions(2).shape
    (2, 119, 6)
    """
    rng = np.random.default_rng(seed)
    return np.stack([Motion.draw(rng).recorded(rng) for _ in range(count)])


def _axis(rng: np.random.Generator) -> Floats:
    """A direction, more often near to one of the board's axes than between them."""
    axis = rng.normal(size=3)
    axis = np.abs(axis) ** 1.5 * np.sign(axis)
    return np.asarray(axis / np.linalg.norm(axis))


def _felt(rng: np.random.Generator, angles: Floats, place: Floats) -> Floats:
    """What the sensor says of (3, samples) roll, pitch, yaw and metres; noise and limits too."""

    def change(of: Floats) -> Floats:
        return np.asarray(np.gradient(of, 1 / _RATE, axis=1))

    rate = change(angles)
    turn, push = change(rate), change(change(place)) / _EARTH
    roll, pitch, _ = angles
    g = np.stack([-np.sin(pitch), np.cos(pitch) * np.sin(roll), np.cos(pitch) * np.cos(roll)])
    g += push
    arm = rng.uniform(0.1, 0.4) / _EARTH
    g[0] -= arm * (rate[1] ** 2 + rate[2] ** 2)
    g[1] += arm * turn[2]
    g[2] -= arm * turn[1]
    g += rng.normal(0, 0.03, g.shape)
    spun = np.degrees(rate) + rng.normal(0, 3, rate.shape)
    return np.clip(np.concatenate([g, spun]).T, -LIMITS, LIMITS)
