"""Ten shapes by name, as distances to their edges, for made-up pictures to be painted with."""

from __future__ import annotations

import numpy as np

from dpsgd_torch.tasks.coloured import Canvas, Floats

SHAPES = ("disc", "ring", "square", "frame", "bar", "cross", "triangle", "crescent", "pair", "dots")


def shape(canvas: Canvas, name: str, x: float, y: float, size: float, angle: float) -> Floats:
    """About the distance to its edge, negative inside; ``angle`` turns it about (x, y)."""
    u, v = canvas.turned(x, y, angle)
    match name:
        case "disc":
            return canvas.ellipse(x, y, size, size, 0)
        case "ring":
            return np.abs(canvas.ellipse(x, y, size, size, 0)) - np.float32(0.25 * size)
        case "square":
            return canvas.box(x, y, 0.8 * size, 0.8 * size, angle)
        case "frame":
            return np.abs(canvas.box(x, y, 0.8 * size, 0.8 * size, angle)) - np.float32(0.2 * size)
        case "bar":
            return canvas.box(x, y, 1.2 * size, 0.25 * size, angle)
        case "cross":
            arms = (canvas.box(x, y, size, 0.25 * size, angle + turn) for turn in (0, np.pi / 2))
            return np.minimum(*arms)
        case "triangle":
            height = np.float32(0.55 * size)
            sides = (np.cos(turn) * u + np.sin(turn) * v for turn in (0, 2.0944, 4.1888))
            return np.maximum.reduce([*sides]).astype(np.float32) - height
        case "crescent":
            bitten = canvas.ellipse(
                x + 0.5 * size * np.cos(angle), y + 0.5 * size * np.sin(angle), size, size, 0
            )
            return np.maximum(canvas.ellipse(x, y, size, size, 0), -bitten)
        case "pair":
            apart = 0.6 * size
            ends = (
                canvas.ellipse(
                    x + side * apart * np.cos(angle), y + side * apart * np.sin(angle),
                    0.45 * size, 0.45 * size, 0,
                )
                for side in (-1, 1)
            )  # fmt: skip
            return np.minimum(*ends)
    period = np.float32(0.8 * size)
    folded = [np.mod(each, period) - period / 2 for each in (u, v)]
    dots = np.hypot(*folded) - np.float32(0.25 * size)
    return np.maximum(dots, canvas.box(x, y, 1.2 * size, 1.2 * size, angle)).astype(np.float32)
