"""The trade-off as a picture: what is lost by ε, for some n, and by n, for some ε."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dpsgd_torch.advice.settings import Asked, Suggestion, expected_kept
from dpsgd_torch.errors import ConfigError

_POINTS = 25
_TIMES = (0.25, 1, 4)  # as many records, or as large an ε
_COLORS = ("#b5651d", "#1f5fa8", "#3b7a57")


def draw(asked: Asked, found: Suggestion, out: Path) -> None:
    """Write the picture to ``out``, PNG, SVG or PDF by its name.

    Raises:
        ConfigError: the file cannot be written.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_epsilon, by_n = figure.subplots(1, 2, sharey=True)
    epsilons = [float(e) for e in np.geomspace(min(0.1, asked.epsilon), 20, _POINTS)]
    sizes = [round(n) for n in np.geomspace(max(100, asked.n / 30), asked.n * 30, _POINTS)]
    for times, color in zip(_TIMES, _COLORS, strict=True):
        n, epsilon = max(2, round(times * asked.n)), min(times * asked.epsilon, 100.0)
        _line(by_epsilon, epsilons, [_lost(asked, n=n, epsilon=e) for e in epsilons],
              f"n = {n:,}", color)  # fmt: skip
        _line(by_n, sizes, [_lost(asked, n=m, epsilon=epsilon) for m in sizes],
              f"ε = {epsilon:g}", color)  # fmt: skip
    for axes, x, label in ((by_epsilon, asked.epsilon, "ε"), (by_n, asked.n, "records n")):
        axes.plot([x], [100 * (1 - found.kept)], "o", color="#a02c2c", label="what is suggested")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    by_epsilon.set_ylabel("lost of the accuracy above chance, %")
    try:
        figure.savefig(out, dpi=130)
    except (OSError, ValueError) as error:
        raise ConfigError(f"plot = {out}: cannot be written ({error}); name a .png file") from None


def _lost(asked: Asked, *, n: int, epsilon: float) -> float:
    return 100 - 100 * expected_kept(dataclasses.replace(asked, n=n, epsilon=epsilon))


def _line(axes: Any, x: list[Any], y: list[float], label: str, color: str) -> None:
    axes.plot(x, y, color=color, label=label)
