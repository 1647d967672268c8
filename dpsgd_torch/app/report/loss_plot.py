"""Where accuracy is lost, on made-up data: bars over seeds, and what they say in words."""

from __future__ import annotations

import numpy as np

from dpsgd_torch.app.explained import KINDS, Explained
from dpsgd_torch.app.report.picture import Picture
from dpsgd_torch.app.report.plots import PRIVATE, TWIN, sized, svg_of

_INK = "#444444"


def loss_picture(found: Explained) -> Picture:
    """Mean accuracy of each kind of run, with each seed's as a dot."""
    axes, figure = sized("", "accuracy on made-up rows, %")
    means = [100 * found.mean(kind) for kind in KINDS]
    axes.grid(visible=False, axis="x")
    axes.bar(KINDS, means, 0.6, color=[PRIVATE, TWIN, TWIN], alpha=0.5)
    values = 100 * np.array([found.reached[kind] for kind in KINDS])
    least, most = values.min(), values.max()
    room = max(1.0, most - least)
    for place, reached in enumerate(values):
        axes.plot(np.full(len(reached), place), reached, "o", color=_INK, ms=4)
        top = reached.max() + 0.05 * room
        axes.text(place, top, f"{means[place]:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_ylim(max(0.0, least - 1.5 * room), most + 0.3 * room)
    told = ", ".join(f"{kind} {mean:.2f} %" for kind, mean in zip(KINDS, means, strict=True))
    return Picture(
        "Clipping and noise, on made-up data",
        svg_of(figure, as_text=True),
        f"Accuracy on made-up rows, mean of {len(found.reached['private'])} seeds: {told}.",
        "Bars are means, dots are seeds; the axis does not begin at 0.",
    )


def loss_words(found: Explained, accuracy: float | None) -> str:
    """What was lost to what, and how far made-up data is from the run's own.

    Args:
        accuracy: what the run itself reached on its test rows.
    """
    spread = 100 * found.spread
    noise, clip = (
        _part(100 * points, spread, what)
        for points, what in ((found.noise, "noise"), (found.clip, "the clip"))
    )
    apart = ""
    if accuracy is not None:
        reached = found.mean("private")
        harder = "harder" if accuracy < reached else "easier"
        apart = (
            f" The private runs reach {reached:.2%} on made-up rows and this run {accuracy:.2%} on "
            f"its own test rows, which are {100 * abs(reached - accuracy):.1f} points {harder}: "
            "how the loss is divided there may differ by as much."
        )
    shrunk = ""
    if found.share < 1:
        shrunk = (
            f" Batch and noise multiplier are {found.share:.3g} of the run’s, so that the noise in "
            "the mean gradient is the run’s; fewer rows are told apart less well, with noise or "
            "without."
        )
    return (
        f"The same plan was run on {found.rows} made-up rows, and scored on {found.test_rows} "
        f"others: no private row was looked at, and nothing was charged. Of the accuracy there, "
        f"{noise}; {clip} (seeds differ by up to {spread:.2f} points). Without noise means with "
        f"10⁻⁶ of the clip norm.{shrunk}{apart}"
    )


def _part(points: float, spread: float, what: str) -> str:
    if abs(points) <= spread:
        return f"{what} takes {points:.2f} points, no more than chance"
    return f"{what} takes {points:.2f} points" if points > 0 else f"{what} adds {-points:.2f}"
