"""The whole configuration of a run, frozen; it refuses what cannot be run when it is built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.privacy import Privacy
from dpsgd_torch.schedules import Linear, Schedule, as_schedule

DATASETS = ("mnist", "fashion-mnist", "digits", "gestures")
LOSSES = ("cross-entropy", "mean-squared")
_POSITIVE = (
    "clip_norm",
    "final_clip_norm",
    "noise_multiplier",
    "final_noise_multiplier",
    "epsilon",
    "learning_rate",
)


def _flag(help: str, **options: Any) -> Any:
    return dataclasses.field(metadata={"help": help, **options})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What determines a run. Every field is a flag of ``python -m dpsgd_torch.train``."""

    preset: str = _flag("where the defaults come from")
    dataset: str = _flag("what to train on", choices=DATASETS)
    dataset_size: int | None = _flag(
        "n, the number of training records, declared in public; none: as many as there are"
    )
    epochs: int = _flag("passes over the data, in expectation")
    batch_size: int = _flag("expected batch size; each record joins with probability B/n")
    microbatches: int | None = _flag("clipped vectors in a batch; default: one an example")
    clip_norm: float = _flag("L2 norm each microbatch's gradient is clipped to")
    final_clip_norm: float | None = _flag("let the clip norm run linearly to this at the last step")
    noise_multiplier: float | None = _flag("deviation of the noise / clip norm")
    final_noise_multiplier: float | None = _flag("let the noise run linearly to this")
    epsilon: float | None = _flag(
        "budget: alone, the noise is calibrated to it; with --noise-multiplier, a hard stop"
    )
    delta: float = _flag("δ of the guarantee; keep it below 1/n")
    learning_rate: float = _flag("of plain SGD")
    loss: str = _flag("on logits, or on probabilities against one-hot", choices=LOSSES)
    dropout: float = _flag("before the last layer")
    dp: bool = _flag("train with differential privacy; --no-dp for the same run without")
    twin: bool = _flag("train a non-private twin from the same initial weights beside it")
    physical_batch_size: int = _flag(
        "examples whose gradients are held at once; bounds memory only"
    )
    checkpoint_every: int = _flag("steps between checkpoints, besides each epoch's end")
    device: str = _flag("cpu, cuda, …")
    seed: int | None = _flag("repeatable run; whoever knows the seed can subtract the noise")

    def __post_init__(self) -> None:
        _require(self.dataset in DATASETS, "dataset", self.dataset, f"must be one of {DATASETS}")
        for name in ("epochs", "batch_size", "physical_batch_size", "checkpoint_every"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "must be a whole number ≥ 1")
        _require(
            self.dataset_size is None or self.batch_size <= self.dataset_size,
            "batch_size",
            self.batch_size,
            f"must be at most n = {self.dataset_size}; lower --batch-size",
        )
        _require(
            self.loss == "cross-entropy" or self.dataset == "gestures",
            "loss",
            self.loss,
            f"is for gestures, not {self.dataset}; use cross-entropy",
        )
        count = self.microbatches
        _require(
            count is None or (count >= 1 and self.batch_size % count == 0),
            "microbatches",
            count,
            f"must divide the batch of {self.batch_size}; choose a divisor",
        )
        for name in _POSITIVE:
            value = getattr(self, name)
            within = value is None or 1e-6 <= value <= 1e6
            _require(within, name, value, "must lie between 1e-6 and 1e6")
        _require(0 < self.delta < 1, "delta", self.delta, "must lie in (0, 1); try --delta 1e-5")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "must lie in [0, 1)")
        _require(self.seed is None or self.seed >= 0, "seed", self.seed, "must be ≥ 0")
        _require(
            not self.dp or self.noise_multiplier is not None or self.epsilon is not None,
            "noise_multiplier",
            None,
            "a private run needs --noise-multiplier or --epsilon; or pass --no-dp",
        )
        _require(
            self.noise_multiplier is not None or self.final_noise_multiplier is None,
            "final_noise_multiplier",
            self.final_noise_multiplier,
            "needs a start; pass --noise-multiplier too",
        )

    @property
    def microbatch_size(self) -> int:
        return self.batch_size // (self.microbatches or self.batch_size)

    def privacy(self, steps: int) -> Privacy | None:
        """The promise this configuration asks for."""
        if not self.dp:
            return None
        return Privacy(
            epsilon=self.epsilon,
            delta=self.delta,
            clip_norm=_line(self.clip_norm, self.final_clip_norm, steps),
            noise_multiplier=None
            if self.noise_multiplier is None
            else _line(self.noise_multiplier, self.final_noise_multiplier, steps),
            microbatch_size=self.microbatch_size,
            dataset_size=self.dataset_size,
        )

    def to_json(self) -> dict[str, Any]:
        """All fields, but of the seed, which the noise rests on, only whether there is one."""
        fields = dataclasses.asdict(self)
        return {**fields, "seed": self.seed is not None}


def _line(first: float, last: float | None, steps: int) -> Schedule:
    return as_schedule(first) if last is None else Linear(first, last, steps)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {value}: {rule}")
