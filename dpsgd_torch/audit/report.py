"""What an audit found: ε from below beside ε from above, and which claims were tested."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dpsgd_torch.audit.checks import Check


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """One run's audit; ``bounds`` are lower bounds on ε by method, each by itself.

    ``epsilon`` is the certified upper bound at ``delta``; None where only checks were made. The
    numbers depend on secret coins and noise, which no ε covers: they are for whoever holds the
    data.
    """

    checks: list[Check]
    epsilon: float | None = None
    delta: float | None = None
    confidence: float = 0.95
    canaries: int = 0
    guesses: int = 0
    correct: int = 0
    bounds: dict[str, float] = field(default_factory=dict)
    best: float = 0.0
    not_checked: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What contradicts the guarantee: claims that fail, and bounds above ε."""
        failed = [str(check) for check in self.checks if not check.passed]
        if self.epsilon is not None and self.best > self.epsilon:
            failed.append(f"ε ≥ {self.best:.3f} was seen, above the certified {self.epsilon:.3f}")
        return failed

    def to_json(self) -> dict[str, Any]:
        """The fields, and the verdict."""
        return {**dataclasses.asdict(self), "faults": self.faults}

    def __str__(self) -> str:
        lines = []
        if self.epsilon is not None:
            lines += [
                f"ε ≤ {self.epsilon:.4g} is certified, at δ = {self.delta:g}",
                f"{self.canaries} canaries were in this very run, or left out, each by its own "
                f"coin; {self.correct} of {self.guesses} guesses were right",
            ]
            lines += [
                f"ε ≥ {bound:.4g} at {self.confidence:.0%} ({method})"
                for method, bound in self.bounds.items()
            ]
            lines.append(f"ε ≥ {self.best:.4g} by the best of those that assume nothing, paid for")
        lines += [str(check) for check in self.checks]
        lines += [f"not checked: {what}" for what in self.not_checked]
        count = len(self.faults)
        lines.append("nothing contradicts the guarantee" if not count else f"FAULTS: {count}")
        return "\n".join(lines)
