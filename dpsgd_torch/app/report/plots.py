"""The curves of a run as SVG text."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.schedules import schedule_from_json
from dpsgd_torch.training.history import NORM_EDGES, History

PRIVATE, TWIN, MARK = "#1f5fa8", "#b5651d", "#a02c2c"
_NAMED = 12  # lines of one picture, at most, that a legend names
_LONG = 100  # epochs: after so many the first ones hide how the last ones differ
_STYLE: Any = {"svg.hashsalt": "dpsgd_torch", "font.size": 10, "axes.spines.top": False,
          "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}  # fmt: skip


def curves(history: History, twin: History | None, *, private: bool) -> dict[str, str]:
    """Title → SVG: each test score and ε by epoch, and accuracy against ε."""
    name = "private" if private else "non-private"
    epochs = [record.epoch for record in history.epochs]
    pictures = {}
    for metric, scores in by_metric(history.epochs[-1].test).items():
        if len(scores) > 1:
            axes, figure = sized("epoch", f"test {metric}")
            for score in scores:
                axes.plot(epochs, [r.test[score] for r in history.epochs], label=plain(score))
            if len(scores) <= _NAMED:
                axes.legend(frameon=False, fontsize=7)
            pictures[f"Test {metric} by epoch"] = svg_of(figure)
            continue
        score = scores[0]
        axes, figure = sized("epoch", f"test {score}")
        _line(axes, epochs, [r.test[score] for r in history.epochs], PRIVATE, name)
        if twin:
            values = [r.test[score] for r in twin.epochs]
            _line(axes, [r.epoch for r in twin.epochs], values, TWIN, "non-private baseline")
            axes.legend(frameon=False)
        pictures[f"Test {score} by epoch"] = svg_of(figure)
        if epochs[-1] > _LONG:
            axes, figure = sized("epoch", f"test {score}")
            late = [r for r in history.epochs if r.epoch >= _LONG]
            _line(axes, [r.epoch for r in late], [r.test[score] for r in late], PRIVATE, name)
            pictures[f"Test {score} from epoch {_LONG}"] = svg_of(figure)
    if private:
        spent = [r.epsilon or 0.0 for r in history.epochs]
        axes, figure = sized("epoch", "ε so far")
        _line(axes, epochs, spent, PRIVATE, name)
        axes.set_ylim(bottom=0)
        pictures["ε by epoch"] = svg_of(figure)
        for shown in [s for s in ("accuracy", "loss") if s in history.epochs[-1].test][:1]:
            axes, figure = sized("ε so far", f"test {shown}")
            _line(axes, spent, [r.test[shown] for r in history.epochs], PRIVATE, name)
            pictures[f"{shown.capitalize()} against ε"] = svg_of(figure)
    if history.scores:
        axes, figure = sized("epoch", "validation score")
        _line(axes, epochs[: len(history.scores)], history.scores, PRIVATE, name)
        pictures["Validation score by epoch"] = svg_of(figure)
    return pictures


def by_metric(scores: Iterable[str]) -> dict[str, list[str]]:
    """Metrics, and the names of the numbers that each gives.

    >>> by_metric(["loss", "f1/0", "f1/1"])
    {'loss': ['loss'], 'f1': ['f1/0', 'f1/1']}
    """
    found: dict[str, list[str]] = {}
    for score in scores:
        found.setdefault(score.split("/")[0], []).append(score)
    return found


def schedules(spent: PrivacyGuarantee) -> dict[str, str]:
    """Title → SVG: noise multiplier and clip norm by step, where they vary."""
    steps = range(spent.planned_steps // spent.runs)
    pictures = {}
    for title, written in (
        ("Noise multiplier by step", spent.noise_multiplier_schedule),
        ("Clip norm by step", spent.clip_norm_schedule),
    ):
        values = [schedule_from_json(written).at(step) for step in steps]
        if len(set(values)) > 1:
            axes, figure = sized("step", title.split(" by")[0].lower())
            axes.step(steps, values, where="post", color=PRIVATE)
            axes.set_ylim(bottom=0)
            pictures[title] = svg_of(figure)
    return pictures


def calibration(predicted: Sequence[float], observed: Sequence[float]) -> str:
    """SVG: each label's mean probability against how often it is positive among test rows."""
    axes, figure = sized("frequency among test rows", "mean predicted probability")
    floor = 0.5 * min([value for value in (*predicted, *observed) if value > 0], default=1e-4)
    shown = [max(value, floor) for value in observed]
    axes.plot(shown, predicted, ".", color=PRIVATE, alpha=0.6, label="a label")
    axes.plot([floor, 1], [floor, 1], color=MARK, linewidth=1, label="calibrated")
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False)
    return svg_of(figure)


def promise_by_rows(rows: Sequence[tuple[int, float]], unit: str, flat: float) -> str:
    """SVG: ε for whoever holds so many rows, if rows are protected and if ``unit`` is."""
    axes, figure = sized(f"rows of one {unit}", "ε promised to it")
    _line(axes, [k for k, _ in rows], [e for _, e in rows], TWIN, "each row protected by itself")
    axes.axhline(flat, color=PRIVATE, label=plain(f"each {unit} protected as one"))
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return svg_of(figure)


def trials_picture(scores: Sequence[float]) -> str:
    """SVG of a search: each trial's score and the best so far: NOT covered by ε."""
    axes, figure = sized("trial", "score (lower is better)")
    numbers = range(1, len(scores) + 1)
    axes.plot(numbers, scores, "o", color=TWIN, label="a trial")
    best = np.minimum.accumulate(np.array(scores))
    axes.step(numbers, best, where="post", color=PRIVATE, label="the best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return svg_of(figure)


def norm_histogram(counts: Sequence[Sequence[int]], clip_norm: float) -> str:
    """SVG of gradient norms before the clip, first and last epoch: NOT covered by ε."""
    axes, figure = sized("gradient norm before the clip", "microbatches")
    edges = np.array([NORM_EDGES[1] / 2, *NORM_EDGES[1:-1], NORM_EDGES[-2] * 2])
    shown = {"first epoch": counts[0], "last epoch": counts[-1]}
    for (label, values), color in zip(shown.items(), (TWIN, PRIVATE), strict=True):
        axes.stairs(values, edges, label=label, color=color, fill=True, alpha=0.5)
    axes.axvline(clip_norm, color=MARK, label="clip norm")
    axes.set_xscale("log")
    axes.legend(frameon=False)
    return svg_of(figure)


def sized(x: str, y: str, *, height: float = 3.2) -> tuple[Axes, Figure]:
    """Axes of the page's look, with what stands along them."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=plain(x), ylabel=plain(y))
        if x == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return axes, figure


def plain(text: str) -> str:
    """Text with no formula in it: names of columns are anybody's."""
    return text.replace("$", r"\$")


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], color: str, label: str) -> None:
    marker = "o" if len(x) <= _LONG else ""
    axes.plot(x, y, marker=marker, markersize=4, color=color, label=label)


def svg_of(figure: Figure, *, as_text: bool = False) -> str:
    """The same text for the same figure.

    Args:
        as_text: leave letters to the browser, whose fonts know more scripts, not drawn as paths.
    """
    buffer = io.StringIO()
    style = {**_STYLE, "svg.fonttype": "none" if as_text else "path"}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().split("?>", 1)[1].split('dtd">', 1)[-1].strip()
