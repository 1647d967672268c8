"""report.html: one self-contained page, and the private picture beside it in private/."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jinja2

from accountant import Event
from accountant.statement import round_up
from dpsgd_torch.app.classified import Classified
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.evidence import Audited, below
from dpsgd_torch.app.explained import Explained
from dpsgd_torch.app.predict import Predicted
from dpsgd_torch.app.report.attacker import Attacker
from dpsgd_torch.app.report.class_plots import class_pictures
from dpsgd_torch.app.report.loss_plot import loss_picture, loss_words
from dpsgd_torch.app.report.picture import Picture, described
from dpsgd_torch.app.report.plots import (
    calibration,
    curves,
    norm_histogram,
    promise_by_rows,
    schedules,
)
from dpsgd_torch.app.report.promises import Promises
from dpsgd_torch.app.report.records import beside_records, comparable
from dpsgd_torch.audit.guessed import FROM_OUTSIDE
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.history import History


def write_report(
    folder: RunFolder,
    config: RunConfig,
    history: History,
    twin: History | None,
    spent: PrivacyGuarantee | None,
    words: str,
    predicted: Predicted,
    promises: Promises | None,
    label_epsilon: float | None,
    machine: Sequence[tuple[str, str]] = (),
    events: list[tuple[Event, int]] | None = None,
    audited: Audited | None = None,
    classified: Classified | str = "",
    explained: Explained | None = None,
    board: str = "",
) -> None:
    """Write report.html, and private/gradient-norms.svg for a private run.

    ``events`` is what ε is that of: the page reads an attacker's chances off it. ``classified`` is
    what was counted on the public test rows, or why nothing was. ``board``: HTML of what the
    model takes there.
    """
    if not history.epochs:
        return
    points = audited.outside.points if audited else ()
    attacker = Attacker.of(events, points) if events else None
    last = history.epochs[-1].test
    records = comparable(config)
    beside = beside_records(history, records)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpsgd_torch.app.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        config=config,
        figures=_figures(history, twin, spent, predicted, audited),
        pictures=_pictures(history, twin, spent, predicted, promises),
        beside=beside,
        records=records if beside else (),
        classified=None if isinstance(classified, str) else classified,
        by_class=[] if isinstance(classified, str) else class_pictures(classified),
        not_classified=classified if isinstance(classified, str) else "",
        lost=loss_picture(explained) if explained else None,
        lost_words=loss_words(explained, last.get("accuracy")) if explained else "",
        promises=promises,
        rows=history.epochs,
        scores=list(last),
        twin={record.epoch: record for record in twin.epochs} if twin else {},
        spent=spent.to_json() if spent else {},
        words=words,
        round_up=round_up,
        label_epsilon=label_epsilon,
        machine=machine,
        attacker=attacker,
        board=board,
    )
    folder.write_text("report.html", page)
    counts = [row["norm_counts"] for row in history.private]
    if spent and counts:
        folder.write_text("private/gradient-norms.svg", norm_histogram(counts, spent.clip_norm))


def _pictures(
    history: History,
    twin: History | None,
    spent: PrivacyGuarantee | None,
    predicted: Predicted,
    promises: Promises | None,
) -> list[Picture]:
    pictures = curves(history, twin, private=spent is not None)
    if spent:
        pictures |= schedules(spent)
    if predicted.predicted is not None and predicted.observed is not None:
        pictures["Calibration, label by label"] = calibration(
            predicted.predicted.tolist(), predicted.observed.tolist()
        )
    if promises:
        title = f"What one {promises.unit} is promised"
        pictures[title] = promise_by_rows(promises.by_rows, promises.unit, promises.as_one)
    return described(pictures)


def _figures(
    history: History,
    twin: History | None,
    spent: PrivacyGuarantee | None,
    predicted: Predicted,
    audited: Audited | None,
) -> list[tuple[str, str]]:
    """The few numbers a reader looks for first."""
    last = history.epochs[-1].test
    figures = []
    if "accuracy" in last:
        figures.append(("test accuracy", f"{last['accuracy']:.2%}"))
    if twin and "accuracy" in twin.epochs[-1].test:
        figures.append(("of the non-private baseline", f"{twin.epochs[-1].test['accuracy']:.2%}"))
    if "token_accuracy" in last:
        figures.append(("of next tokens are right", f"{last['token_accuracy']:.2%}"))
        figures.append(("perplexity by token", f"{math.exp(min(last['loss'], 700.0)):.2f}"))
    if predicted.log_loss is not None:
        figures.append(("test log loss", f"{predicted.log_loss:.5f}"))
    if spent:
        figures.append(("ε ≤, certified" if audited else "ε", round_up(spent.epsilon)))
        if audited:
            confidence = f"{audited.outside.confidence:.0%}"
            figures.append((f"ε ≥, audited ({confidence})", below(audited.outside.best)))
            if (seen := audited.outside.bounds.get(FROM_OUTSIDE)) is not None:
                figures.append(("ε ≥, if the noise is Gaussian", below(seen)))
        figures.append(("δ", repr(spent.delta)))
        agreement = spent.agreement
        if math.isfinite(agreement):
            figures.append(("Opacus’s Rényi ε differs by", f"{agreement:.0e}"))
    return figures
