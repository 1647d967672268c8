"""Charges of one run's steps: reserved before a draw, settled after it, repeated or paid anew."""

from __future__ import annotations

from accountant import Event, Ledger
from dpsgd_torch.errors import GuaranteeBroken


class Charges:
    """One part of a ledger as a run's steps see it; a run without privacy has no ledger.

    ``broken`` says why nothing may be released any more; empty where all is well.
    """

    def __init__(self) -> None:
        self.broken = ""
        self._ledger: Ledger | None = None
        self._attempt: int | None = None

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            raise AttributeError("ledger: none is open; the run has not started, or has no privacy")
        return self._ledger

    @property
    def attempt(self) -> int:
        """The number of the attempt, which keys the random streams."""
        if self._attempt is None:
            raise AttributeError("attempt: the run has not started")
        return self._attempt

    @property
    def has_ledger(self) -> bool:
        return self._ledger is not None

    @property
    def are_open(self) -> bool:
        return self._attempt is not None

    def open(self, ledger: Ledger | None) -> None:
        """Charge to ``ledger`` from now on; ``begin`` comes next."""
        self._ledger = ledger

    def begin(
        self, *, first_step: int, environment: str, repeatable: bool, kept_in: int | None = None
    ) -> None:
        """Go on with the last attempt where it can be repeated, else begin another."""
        self._attempt = 0
        if self._ledger is not None:
            self._attempt = self._ledger.begin(
                first_step=first_step,
                environment=environment,
                repeatable=repeatable,
                kept_in=kept_in,
            )

    def reserve(self, step: int, event: Event) -> int | None:
        """Reserve a step, or find that this attempt has; returns the checksum then on record."""
        if self.ledger.is_charged(step):
            return self.ledger.repeat(step, event)
        self.ledger.reserve(step, event)
        return None

    def settle(self, step: int, checksum: int, on_record: int | None) -> None:
        """Put on record what came out, or see that a repetition gave the same."""
        if on_record is None:
            self.ledger.settle(step, checksum)
        elif on_record != checksum:
            self.ledger.end_attempt()
            self.broken = (
                f"step {step}: its repetition gave other weights than are on record, so the same "
                "noise met other gradients; this trainer releases nothing: resume once more, with "
                "fresh noise"
            )
            raise GuaranteeBroken(self.broken)

    def refuse_broken(self) -> None:
        if self.broken:
            raise GuaranteeBroken(self.broken)
