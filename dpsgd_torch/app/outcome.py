"""What a run came to, for whoever shows it or goes on with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpsgd_torch.app.evidence import Audited
from dpsgd_torch.app.predict import Predicted
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.training.history import History


@dataclass(frozen=True)
class Outcome:
    """What a run came to; the history of a cross-validation is the mean over its folds."""

    folder: Path
    history: History
    twin: History | None
    spent: PrivacyGuarantee | None
    stopped: str
    predicted: Predicted
    label_epsilon: float | None
    audited: Audited | None = None
