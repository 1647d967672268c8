"""Audit of a run: evidence about ε from below, beside the proof from above."""

from dpsgd_torch.audit.canaries import Canaries, audit_run
from dpsgd_torch.audit.replay import largest_change, replay
from dpsgd_torch.audit.report import AuditReport, Check

__all__ = ["AuditReport", "Canaries", "Check", "audit_run", "largest_change", "replay"]
