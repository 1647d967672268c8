"""The whole configuration of a run, frozen; it refuses what cannot be run when it is built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accountant import Event, InvalidValue
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.schedules import GRAMMAR, Schedule, shape_from_text

if TYPE_CHECKING:
    from dpsgd_torch.privacy.privacy import Privacy

DATASETS = ("mnist", "fashion-mnist", "digits", "gestures", "responses")
LOSSES = ("cross-entropy", "mean-squared")
OPTIMIZERS = ("sgd", "adam")
VALIDATIONS = ("none", "private", "public", "selection")
_POSITIVE = (
    "clip_norm",
    "noise_multiplier",
    "epsilon",
    "learning_rate",
    "statistics_epsilon",
    "frequencies_epsilon",
    "selection_epsilon",
    "label_epsilon",
    "validation_noise",
    "validation_bound",
)
_COUNTS = (
    "epochs",
    "batch_size",
    "physical_batch_size",
    "checkpoint_every",
    "rows_per_unit",
    "folds",
    "patience",
    "plateau",
    "select_features",
)
_SHAPE = f"by step, as factors of the first value: {GRAMMAR}, or @FILE of lines step,factor"


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
    clip_schedule: str = _flag(f"clip norm {_SHAPE}")
    noise_multiplier: float | None = _flag("deviation of the noise / clip norm")
    noise_schedule: str = _flag("noise multiplier by step, likewise; scaled by calibration")
    epsilon: float | None = _flag(
        "budget: alone, the noise is calibrated to it; with --noise-multiplier, a hard stop"
    )
    delta: float = _flag("δ of the guarantee; keep it below 1/n")
    privacy_unit: str = _flag(
        "whom ε protects: record, or a column of ids in the data (drug_id, patient_id, …)"
    )
    rows_per_unit: int = _flag("rows of such a unit that are averaged and clipped as one, at most")
    statistics_epsilon: float | None = _flag(
        "ε spent on feature means and scales (Laplace noise); none: as they are"
    )
    frequencies_epsilon: float | None = _flag(
        "ε spent on label frequencies, which the model starts from (Laplace noise)"
    )
    select_features: int | None = _flag("keep so many features, chosen privately")
    selection_epsilon: float = _flag("ε spent on that choice (exponential mechanism)")
    label_epsilon: float | None = _flag(
        "instead of DP-SGD: randomize each label, private at this ε, and train on those"
    )
    folds: int = _flag(
        "cross-validate: so many models, one budget for all; their validation is private unless "
        "--validation says otherwise"
    )
    validation: str = _flag(
        "rows kept out to watch: none, private or public; or for the choice that a search makes",
        choices=VALIDATIONS,
    )
    validation_noise: float = _flag("deviation of a released score's noise / its bound")
    validation_bound: float = _flag("largest score a unit can contribute to private validation")
    patience: int | None = _flag("stop after so many epochs without a better validation score")
    plateau: int | None = _flag("after so many, divide the learning rate by 10")
    keep_best: bool = _flag("end with the epoch whose validation score was best")
    optimizer: str = _flag("what takes the noisy gradient", choices=OPTIMIZERS)
    learning_rate: float = _flag("of the optimizer")
    rate_schedule: str = _flag("learning rate by step, likewise")
    hidden: str = _flag("widths of the tabular network, as in 2048,1048; empty: linear")
    features: str = _flag("columns of the tabular data: all, or the notebook's list")
    loss: str = _flag("on logits, or on probabilities against one-hot", choices=LOSSES)
    dropout: float = _flag("before the last layer; tabular: before the inner layers")
    dp: bool = _flag("train with differential privacy; --no-dp for the same run without")
    twin: bool = _flag("train a non-private baseline from the same initial weights beside it")
    physical_batch_size: int = _flag(
        "examples whose gradients are held at once; bounds memory only"
    )
    checkpoint_every: int = _flag("steps between checkpoints, besides each epoch's end")
    device: str = _flag("cpu, cuda, …")
    seed: int | None = _flag("repeatable run; whoever knows the seed can subtract the noise")

    def __post_init__(self) -> None:
        _require(self.dataset in DATASETS, "dataset", self.dataset, f"must be one of {DATASETS}")
        for name in _COUNTS:
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "must be a whole number ≥ 1")
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
        for name in ("clip_schedule", "noise_schedule", "rate_schedule"):
            try:
                shape_from_text(getattr(self, name), 2)
            except (ConfigError, InvalidValue) as error:
                raise ConfigError(f"{name} = {getattr(self, name)}: {error}") from error
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        tabular = self.dataset == "responses"
        for name in ("statistics_epsilon", "frequencies_epsilon", "select_features"):
            value = getattr(self, name)
            _require(tabular or value is None, name, value, "is for tabular data (--preset moa)")
        watched = self.patience or self.plateau or self.keep_best or self.folds > 1
        _require(
            not watched or self.validation in ("private", "public"),
            "validation",
            self.validation,
            "folds, patience, plateau and keep-best need rows to watch; pass --validation private",
        )
        _require(
            self.label_epsilon is None
            or (not self.dp and not tabular and self.loss == "cross-entropy" and self.folds == 1),
            "label_epsilon",
            self.label_epsilon,
            "takes the place of DP-SGD, for class labels under cross-entropy, without folds; pass "
            "--no-dp too",
        )
        _require(
            self.privacy_unit == "record" or self.microbatch_size == 1,
            "microbatches",
            self.microbatches,
            "a unit's rows are its microbatch; drop one or the other",
        )
        try:
            self.hidden_widths  # noqa: B018
        except ValueError:
            _require(False, "hidden", self.hidden, "must be widths ≥ 1, as in 2048,1048")

    @property
    def microbatch_size(self) -> int:
        return self.batch_size // (self.microbatches or self.batch_size)

    def privacy(self, steps: int, also: tuple[tuple[Event, int], ...] = ()) -> Privacy | None:
        """The promise this configuration asks for, beside what else it releases."""
        if not self.dp:
            return None
        from dpsgd_torch.privacy.privacy import Privacy  # with torch: after --help

        return Privacy(
            epsilon=self.epsilon,
            delta=self.delta,
            clip_norm=self._schedule(self.clip_norm, self.clip_schedule, steps),
            noise_multiplier=None
            if self.noise_multiplier is None
            else self._schedule(self.noise_multiplier, self.noise_schedule, steps),
            noise_shape=self._schedule(1.0, self.noise_schedule, steps),
            microbatch_size=self.microbatch_size,
            dataset_size=self.dataset_size,
            unit=self.privacy_unit,
            also=also,
            runs=self.folds,
        )

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        widths = tuple(int(width) for width in self.hidden.split(",") if width.strip())
        if min(widths, default=1) < 1:
            raise ValueError(self.hidden)
        return widths

    def rates(self, steps: int) -> Schedule:
        """By what the learning rate is multiplied at each step."""
        return self._schedule(1.0, self.rate_schedule, steps)

    @staticmethod
    def _schedule(first: float, text: str, steps: int) -> Schedule:
        return shape_from_text(text, steps).scaled(first)

    def to_json(self) -> dict[str, Any]:
        """All fields, but of the seed, which the noise rests on, only whether there is one."""
        fields = dataclasses.asdict(self)
        return {**fields, "seed": self.seed is not None}


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {value}: {rule}")
