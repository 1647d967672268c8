"""Reference marks: what others and we reached on the same data at an ε, each with its source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.report.picture import Picture
from dpsgd_torch.app.report.plots import MARK, PRIVATE, TWIN, sized, svg_of
from dpsgd_torch.training.history import History


@dataclass(frozen=True)
class Record:
    """A test accuracy in % at an ε for adding or removing one record, and where it stands.

    ``own`` is whether a command of this project prints it; ``note`` says what it rests on.
    """

    who: str
    what: str
    epsilon: float
    accuracy: float
    own: bool
    source: str
    note: str


def records_of(dataset: str) -> tuple[Record, ...]:
    """Those of a data set, in the order of ε; none where none are known.

    >>> [record.accuracy for record in records_of("fashion-mnist")]
    [89.51, 89.93, 86.1, 89.7, 90.31, 90.68]
    """
    text = resources.files("dpsgd_torch.app.report").joinpath("marks.json").read_text("utf-8")
    known = [Record(**fields) for fields in json.loads(text).get(dataset, ())]
    return tuple(sorted(known, key=lambda record: (record.epsilon, record.accuracy)))


def comparable(config: RunConfig) -> tuple[Record, ...]:
    """Those that a run of ``config`` may be set beside: private, record by record."""
    alike = config.dp and config.privacy_unit == "record"
    return records_of(config.dataset) if alike else ()


def beside_records(history: History, records: Sequence[Record]) -> Picture | None:
    """Accuracy against ε of this run among them; None without accuracy or records."""
    points = [(r.epsilon, 100 * r.test["accuracy"]) for r in history.epochs
              if r.epsilon and "accuracy" in r.test]  # fmt: skip
    if not points or not records:
        return None
    axes, figure = sized("ε", "test accuracy, %")
    axes.plot(*zip(*points, strict=True), color=PRIVATE, lw=1)
    epsilon, reached = points[-1]
    axes.plot(epsilon, reached, "o", color=PRIVATE, ms=7, label="this run")
    for own, color, shape, name in (
        (True, TWIN, "s", "ours, by a command"),
        (False, MARK, "D", "published"),
    ):
        shown = [(r.epsilon, r.accuracy) for r in records if r.own is own]
        if shown:
            axes.plot(*zip(*shown, strict=True), shape, color=color, ms=6, label=name)
    for record in records:
        axes.annotate(record.who, (record.epsilon, record.accuracy), (-6, 5), fontsize=7,
                      textcoords="offset points", ha="right")  # fmt: skip
    ends = [reached, *(record.accuracy for record in records)]
    room = max(3.0, max(ends) - min(ends))  # the first epochs would hide how the ends differ
    axes.set(ylim=(min(ends) - room, max(ends) + room / 2))
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=8, loc="best")
    told = f"this run ends at {reached:.2f} % for ε = {epsilon:.4g}"
    others = ", ".join(f"{r.who} {r.accuracy:g} % for ε = {r.epsilon:g}" for r in records)
    return Picture(
        "Accuracy against ε, beside records",
        svg_of(figure, as_text=True),
        f"Accuracy against ε: {told}; {others}.",
        f"{told[0].upper()}{told[1:]}.",
    )
