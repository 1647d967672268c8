"""Two pictures of a run: δ against ε, and ε against steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from accountant.errors import PrivacyError, check
from accountant.events import Event
from accountant.methods import epsilon_by
from accountant.pld.accountant import PldAccountant
from accountant.rdp.accountant import RdpAccountant

_POINTS = 25


def draw(events: list[tuple[Event, int]], delta: float, out: Path) -> None:
    """Write the picture of ``events`` to ``out``; needs matplotlib."""
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError:
        raise PrivacyError("plot: matplotlib is not installed; pip install matplotlib") from None
    whole = epsilon_by("exact", events, delta)
    assert not isinstance(whole, float)
    check(math.isfinite(whole.upper), "epsilon", whole.upper, "has no curve", "add noise")
    matplotlib.use("Agg")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    _delta_curve(left, events, delta, whole.upper)
    _steps_curve(right, events, delta)
    figure.suptitle("What the run costs: exact, and by Rényi divergences")
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise PrivacyError(f"out = {out}: cannot be written ({error}); name a .png file") from error
    finally:
        pyplot.close(figure)


def _delta_curve(axes: Any, events: list[tuple[Event, int]], delta: float, epsilon: float) -> None:
    exact, rdp = PldAccountant(), RdpAccountant()
    exact.compose_all(events)
    rdp.compose_all(events)
    grid = np.linspace(0.0, max(2 * epsilon, 1e-3), _POINTS)
    axes.semilogy(grid, [exact.delta(float(e)).upper for e in grid], label="exact")
    axes.semilogy(grid, [rdp.delta(float(e)).upper for e in grid], "--", label="Rényi bound")
    axes.plot([epsilon], [delta], "o", color="black", label=f"ε = {epsilon:.4g} at δ = {delta:g}")
    axes.set(xlabel="ε", ylabel="δ", title="Every (ε, δ) that holds", ylim=(delta * 1e-6, 2))
    axes.grid(alpha=0.3)
    axes.legend()


def _steps_curve(axes: Any, events: list[tuple[Event, int]], delta: float) -> None:
    total = sum(count for _, count in events)
    marks = sorted({max(round(total * (k / _POINTS) ** 2), 1) for k in range(1, _POINTS + 1)})
    for method, style in (("exact", "-"), ("rdp", "--")):
        values = []
        for mark in marks:
            answer = epsilon_by(method, _first(events, mark), delta)
            values.append(answer if isinstance(answer, float) else answer.upper)
        axes.plot(marks, values, style, label={"exact": "exact", "rdp": "Rényi bound"}[method])
    axes.set(xlabel="steps", ylabel=f"ε at δ = {delta:g}", title="What each step adds")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()


def _first(events: list[tuple[Event, int]], steps: int) -> list[tuple[Event, int]]:
    taken = []
    for event, count in events:
        part = min(count, steps)
        if part:
            taken.append((event, part))
        steps -= part
    return taken
