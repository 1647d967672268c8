"""The visual-wake-words task's flags; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dpsgd_torch.tasks.base import knob, require
from dpsgd_torch.tasks.tiny import TinyKnobs


@dataclass(frozen=True, kw_only=True)
class WakeWordsKnobs(TinyKnobs):
    one_in: int = knob(
        1,
        "of a folder's images, one in so many is read, by its name alone; 10,000 take 1.1 GB",
        rule="count",
        since=3,
    )
    pretraining: int = knob(
        0,
        "made-up pictures of coloured shapes that the network learns before any record (16,000: "
        "two minutes, once); 0: none",
        since=3,
    )
    frozen: bool = knob(False, "after that, train the last layer alone", since=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.pretraining == 0 or self.pretraining >= 32,
            "pretraining",
            self.pretraining,
            "must be a whole number ≥ 32, a batch of pictures, or 0",
        )
        require(
            not self.frozen or self.pretraining > 0,
            "frozen",
            self.frozen,
            "leaves random layers as they are; pass --pretraining 16000, or --no-frozen",
        )
