"""Class by class: confusion matrix, accuracy and reliability diagram of the test rows."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from dpsgd_torch.app.classified import BINS, Classified
from dpsgd_torch.app.report.picture import Picture
from dpsgd_torch.app.report.plots import MARK, PRIVATE, plain, sized, svg_of

MOST = 40  # classes of a matrix that can be read
_NUMBERED = 12  # classes whose numbers fit into its cells
_NORMAL = 1.959963984540054  # two-sided 95 %


def class_pictures(found: Classified) -> list[Picture]:
    """Confusion matrix, accuracy of each class, and calibration, each with a sentence."""
    pictures = [_by_class(found), _reliability(found)]
    return [_matrix(found), *pictures] if len(found.labels) <= MOST else pictures


def wilson(share: float, rows: int) -> tuple[float, float]:
    """95 % confidence interval of a share of so many rows [Wilson 1927].

    >>> low, high = wilson(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    z = _NORMAL**2 / rows
    middle = (share + z / 2) / (1 + z)
    half = _NORMAL * math.sqrt(share * (1 - share) / rows + z / (4 * rows)) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def _matrix(found: Classified) -> Picture:
    classes, counts = len(found.labels), found.confusion
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes, figure = sized("told", "truth", height=4.2)
    axes.grid(visible=False)
    axes.pcolormesh(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1), edgecolors="#dddddd", lw=0.3)
    _name(figure, found.labels)
    axes.invert_yaxis()
    if classes <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.3 else "#444444"
            if count:
                text = f"{count / found.models:.3g}" if found.models > 1 else str(count)
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7,
                          color=color)  # fmt: skip
    wrong = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    told = f"{found.accuracy:.2%} on the diagonal"
    if wrong.any():
        times = wrong[row, column] / found.models
        told += (
            f"; most often, {times:.4g} times, {found.labels[row]} is taken for "
            f"{found.labels[column]}"
        )
    svg = svg_of(figure, as_text=True)
    return Picture("Confusion matrix", svg, f"Confusion matrix: {told}.", f"{told}.")


def _by_class(found: Classified) -> Picture:
    axes, figure = sized("accuracy", "", height=max(2.2, 0.6 + 0.22 * len(found.labels)))
    shares, rows = found.by_class, found.of_class
    seen = [i for i, share in enumerate(shares) if not math.isnan(share)]
    ends = np.array([wilson(shares[i], int(rows[i])) for i in seen])
    where = np.array(seen) + 0.5
    axes.hlines(where, ends[:, 0], ends[:, 1], color=PRIVATE, lw=1.5, alpha=0.5)
    axes.plot(shares[seen], where, "o", color=PRIVATE, ms=4)
    axes.axvline(found.accuracy, color=MARK, lw=1, label="of all rows")
    axes.legend(frameon=False, fontsize=8)
    _name(figure, found.labels, along=False)
    axes.set_ylim(len(found.labels), 0)
    worst, best = min(seen, key=lambda i: shares[i]), max(seen, key=lambda i: shares[i])
    told = (
        f"from {shares[worst]:.1%} ({found.labels[worst]}, {rows[worst]} rows) to "
        f"{shares[best]:.1%} ({found.labels[best]}, {rows[best]} rows)"
    )
    return Picture(
        "Accuracy of each class",
        svg_of(figure, as_text=True),
        f"Accuracy by class: {told}.",
        f"{told[0].upper()}{told[1:]}; lines are 95 % confidence intervals.",
    )


def _reliability(found: Classified) -> Picture:
    axes, figure = sized("probability of the class that is told", "share that is right")
    count, probability, right = found.bins[found.bins[:, 0] > 0].T
    axes.plot([0, 1], [0, 1], color=MARK, lw=1, label="calibrated")
    areas = 8 + 120 * np.sqrt(count / count.sum())
    axes.plot(probability / count, right / count, color=PRIVATE, lw=1)
    axes.scatter(probability / count, right / count, areas, color=PRIVATE, alpha=0.6, lw=0,
                 label="rows of a bin")  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    error, surest = found.calibration_error, found.bins[:, 1].sum() / found.bins[:, 0].sum()
    lean = "too sure" if surest > found.accuracy else "too modest"
    told = (
        f"expected calibration error {error:.4f} ({BINS} bins): on average the model gives the "
        f"class that it tells {surest:.1%}, and {found.accuracy:.1%} are right, so it is {lean}"
    )
    return Picture(
        "Calibration", svg_of(figure), f"Reliability diagram: {told}.",
        f"{told[0].upper()}{told[1:]}.",
    )  # fmt: skip


def _name(figure: Figure, labels: tuple[str, ...], *, along: bool = True) -> None:
    """Write the classes beside the axes, short."""
    (axes,) = figure.axes
    where = np.arange(len(labels)) + 0.5
    short = [plain(label if len(label) <= 14 else label[:13] + "…") for label in labels]
    size = 8 if len(labels) <= 20 else 5
    axes.set_yticks(where, short, fontsize=size)
    if along:
        turned = 90 if max(map(len, short)) > 3 else 0
        axes.set_xticks(where, short, fontsize=size, rotation=turned)
