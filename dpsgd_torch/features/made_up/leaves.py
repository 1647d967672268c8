"""Dead leaves: discs that cover one another, with the edges and scales of natural textures."""

from __future__ import annotations

import numpy as np
import torch

_LEAVES = 60


def dead_leaves(count: int, side: int = 28, seed: int = 0) -> tuple[torch.Tensor, None]:
    """(count, 1, side, side) in [0, 1], and no classes; the same for one seed.

    Discs of radius r with density ∝ r⁻³ between side / 20 and side, each of a grey of its own,
    fall one upon another [Lee, Mumford, Huang 2001, Sec. 3].

    >>> dead_leaves(2)[0].shape
    torch.Size([2, 1, 28, 28])
    """
    rng = np.random.default_rng([seed, side, 2])
    images = np.zeros((count, side, side))
    small, large = side / 20, side
    pixels = np.arange(side)
    for _ in range(_LEAVES):
        share = rng.random((count, 1, 1))
        radius = (small**-2 - share * (small**-2 - large**-2)) ** -0.5
        y, x = rng.uniform(-radius, side + radius, (2, count, 1, 1))
        inside = (pixels[:, None] - y) ** 2 + (pixels - x) ** 2 <= radius**2
        images = np.where(inside, rng.random((count, 1, 1)), images)
    return torch.from_numpy(images).float().unsqueeze(1), None
