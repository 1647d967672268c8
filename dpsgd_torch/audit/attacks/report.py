"""What an attack on a training function found: in words, as data, and as a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from accountant.auditing.operating import Certified
from dpsgd_torch.audit.attacks.verdict import FALSE_ALARM, Verdict
from dpsgd_torch.audit.picture import roc
from dpsgd_torch.errors import RunError

_WORDS = {
    "one-record": "one record, told from its absence by the final model",
    "one-run": "canaries, each in or out by its own coin",
    "lira": "records, in or out by their own coins, by likelihood ratios against shadow models",
}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;"
    "color:#1c1c1c}table{border-collapse:collapse}th,td{padding:.25rem .8rem;text-align:left;"
    "border-bottom:1px solid #eee}figure{margin:1rem 0;max-width:40rem}.bad{color:#a02c2c}"
)


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """Lower bounds on ε beside what is claimed; ``faults`` says what contradicts the claim."""

    train: str
    attack: str
    canary: str
    canaries: int
    models: int
    records: int
    epsilon: float
    delta: float
    confidence: float
    whole_curve: bool
    curve: Certified
    verdict: Verdict
    seconds: float

    @property
    def best(self) -> float:
        """ε from below by what assumes nothing, paid for."""
        return self.verdict.best

    @property
    def faults(self) -> list[str]:
        """What an honest mechanism shows once in 1 / ``FALSE_ALARM`` audits at most."""
        if not self.verdict.contradicted:
            return []
        what = "its trade-off curve" if self.whole_curve else f"ε = {self.epsilon:g}"
        return [f"the attack does better than {what} allows"]

    @property
    def doubts(self) -> list[str]:
        """Bounds above the claim that are no proof: what they assume, or chance, may explain."""
        return [
            f"ε ≥ {bound.epsilon:.4g} by {bound.method} lies above the claim; it {bound.assumes}"
            for bound in self.verdict.bounds
            if bound.epsilon > self.epsilon and not self.faults
        ]

    def to_json(self) -> dict[str, Any]:
        """All figures, and the verdict."""
        plain = {
            name: getattr(self, name)
            for name in ("train", "attack", "canary", "canaries", "models", "records", "epsilon",
                         "delta", "confidence", "whole_curve", "seconds")
        }  # fmt: skip
        return {
            **plain,
            **asdict(self.verdict),
            "false_alarm": FALSE_ALARM,
            "faults": self.faults,
            "doubts": self.doubts,
        }

    def __str__(self) -> str:
        claim = "by its trade-off curve" if self.whole_curve else "by its ε and δ alone"
        lines = [
            f"{self.train}: {_WORDS[self.attack]}",
            f"{self.models} models of {self.records} records, canary: {self.canary}; "
            f"{self.verdict.told}",
            f"ε ≤ {self.epsilon:.4g} is claimed, at δ = {self.delta:g}, and tested {claim}",
        ]
        lines += [
            f"ε ≥ {bound.epsilon:.4g} at {self.confidence:.0%} ({bound.method}; {bound.assumes})"
            for bound in self.verdict.bounds
        ]
        lines += self.doubts
        lines += self.faults or ["nothing contradicts the claim"]
        return "\n".join(lines)

    def to_html(self) -> str:
        """A page that needs nothing else."""
        head, *rest = str(self).split("\n")
        bad = ' class="bad"' if self.faults else ""
        rows = "".join(
            f"<tr><td>{bound.epsilon:.4g}</td><td>{escape(bound.method)}</td>"
            f"<td>{escape(bound.assumes)}</td></tr>"
            for bound in self.verdict.bounds
        )
        name = "certified" if self.whole_curve else f"claimed: ε = {self.epsilon:g}"
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Audit</title>'
            f"<style>{_STYLE}</style></head><body><h1>{escape(head)}</h1>"
            f"<p>{escape(rest[0])}</p><p>{escape(rest[1])}</p><p{bad}><b>"
            f"{escape('; '.join(self.faults) or 'nothing contradicts the claim')}</b></p>"
            f"<figure>{roc(self.curve, self.verdict.points, certified=name)}<figcaption>Limits of "
            f"all points hold together at {self.confidence:.0%}; bars end there.</figcaption>"
            f"</figure><table><tr><th>ε ≥</th><th>by</th><th>which</th></tr>{rows}</table>"
            "</body></html>\n"
        )

    def write(self, folder: Path) -> None:
        """Write audit.json and audit.html."""
        import json

        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "audit.json").write_text(json.dumps(self.to_json(), indent=2) + "\n")
            (folder / "audit.html").write_text(self.to_html())
        except OSError as error:
            raise RunError(f"folder = {folder}: {error.strerror}; name another folder") from None
