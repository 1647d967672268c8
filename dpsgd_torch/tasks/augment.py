"""Augmentations of a task's inputs: shifts of images, recordings held and timed a little otherwise.

How far each goes was chosen beforehand, by what leaves a digit, a garment or a gesture what it is.
"""

from __future__ import annotations

import math

import torch

from dpsgd_torch.data.views import Augment, Draws

_TILT = 0.2  # rad; a board held a little otherwise
_SCALE = 0.1  # of the strength
_LATER = 8  # samples of 119


def shifted(pixels: int, *, flips: bool = False) -> Augment:
    """Images (rows, channels, side, side) moved by up to so many pixels, zeros moving in.

    Args:
        flips: whether half of them are mirrored left to right.

    >>> import numpy as np
    >>> image = torch.zeros(1, 1, 3, 3)
    >>> image[0, 0, 1, 1] = 1
    >>> shifted(1)(image, Draws(bytes(32), np.array([5]), np.array([0]))).sum()
    tensor(1.)
    """

    def augment(images: torch.Tensor, draws: Draws) -> torch.Tensor:
        rows, channels, height, width = images.shape
        moves = (draws(2) * (2 * pixels + 1)).long()  # 0 … 2 pixels: where the window begins
        framed = torch.nn.functional.pad(images, (pixels,) * 4)
        down, right = (torch.arange(side, device=images.device) for side in (height, width))
        if flips:
            mirrored = (draws(1) < 0.5).view(rows, 1)
            right = torch.where(mirrored, right.flip(0), right)
        else:
            right = right.expand(rows, width)
        at = torch.arange(rows, device=images.device).view(rows, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
        y = (moves[:, :1] + down).view(rows, 1, height, 1)
        x = (moves[:, 1:] + right).view(rows, 1, 1, width)
        return framed[at, channel, y, x]

    return augment


def moved_otherwise(samples: int, rest: float) -> Augment:
    """Recordings (rows, samples × 6) tilted by up to 0.2 rad about any axis, 10 % stronger or
    weaker, and up to 8 samples earlier or later, the ends held.

    The sensor's two triples, acceleration and rotation, are tilted together.

    Args:
        rest: the value of a sensor that feels nothing.
    """

    def augment(inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        rows = len(inputs)
        motion = inputs.view(rows, samples, 2, 3) - rest
        scale = 1 + _SCALE * (2 * draws(1) - 1)
        later = ((2 * draws(1) - 1) * (_LATER + 0.999)).long()
        at = (torch.arange(samples, device=inputs.device) - later).clamp(0, samples - 1)
        motion = motion[torch.arange(rows, device=inputs.device).view(rows, 1), at]
        turned = torch.einsum("nij,ntsj->ntsi", _tilts(draws), motion)
        return (turned * scale.view(rows, 1, 1, 1) + rest).clamp(2 * rest - 1, 1).reshape(rows, -1)

    return augment


def _tilts(draws: Draws) -> torch.Tensor:
    """(rows, 3, 3) rotations about axes of any direction [Rodrigues' formula]."""
    height, turn, angle = draws(3).unbind(1)
    z, around = 2 * height - 1, 2 * math.pi * turn
    flat = (1 - z * z).clamp(min=0).sqrt()
    axis = torch.stack([flat * around.cos(), flat * around.sin(), z], dim=1)
    zero, (x, y, w) = torch.zeros_like(z), axis.unbind(1)
    cross = torch.stack([zero, -w, y, w, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    angle = (_TILT * angle).view(-1, 1, 1)
    turned = angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    return torch.eye(3, device=turned.device) + turned
