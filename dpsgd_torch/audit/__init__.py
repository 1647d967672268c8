"""Audit of a run: evidence about ε from below, beside the proof from above."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.audit.attacks.attack import audit_training
    from dpsgd_torch.audit.canaries import Canaries, audit_run
    from dpsgd_torch.audit.checks import Check
    from dpsgd_torch.audit.replayed import largest_change, replay
    from dpsgd_torch.audit.report import AuditReport
    from dpsgd_torch.audit.retraced import retrace
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "attacks.attack": "audit_training",
            "canaries": "Canaries audit_run",
            "checks": "Check",
            "replayed": "largest_change replay",
            "report": "AuditReport",
            "retraced": "retrace",
        },
    )

__all__ = [
    "AuditReport",
    "Canaries",
    "Check",
    "audit_run",
    "audit_training",
    "largest_change",
    "replay",
    "retrace",
]
