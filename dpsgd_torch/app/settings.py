"""The groups of a run's settings, each with its defaults and what it refuses by itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from accountant import InvalidValue
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.schedules import GRAMMAR, shape_from_text

OPTIMIZERS = ("sgd", "adam")
VALIDATIONS = ("none", "private", "public", "selection")
_SHAPE = f"by step, as factors of the first value: {GRAMMAR}, or @FILE of lines step,factor"


def _flag(default: Any, help: str, **options: Any) -> Any:
    """A setting: its default, its help, and what argparse is told beside.

    ``since``: the version of config.json that first had it, 1 unless said: in older ones the
    default stands for it.
    """
    return dataclasses.field(default=default, metadata={"help": help, **options})


def require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {value}: {rule}")


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Settings of one concern; subclasses list what must be positive, or a count."""

    def refuse_values(self, positive: tuple[str, ...] = (), counts: tuple[str, ...] = ()) -> None:
        for name in counts:
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "must be a whole number ≥ 1")
        for name in positive:
            value = getattr(self, name)
            within = value is None or 1e-6 <= value <= 1e6
            require(within, name, value, "must lie between 1e-6 and 1e6")

    def refuse_choices(self) -> None:
        for field in dataclasses.fields(self):
            choices, value = field.metadata.get("choices"), getattr(self, field.name)
            rule = f"must be one of {', '.join(choices or ())}"
            require(not choices or value in choices, field.name, value, rule)

    def refuse_schedules(self, *names: str) -> None:
        for name in names:
            try:
                shape_from_text(getattr(self, name), 2)
            except (ConfigError, InvalidValue) as error:
                raise ConfigError(f"{name} = {getattr(self, name)}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Data(_Group):
    """data and batches"""

    preset: str = _flag("mnist-tutorial", "where the defaults come from")
    dataset: str = _flag("mnist", "what to train on")
    dataset_size: int | None = _flag(
        None,
        "n, the number of training records, declared in public; none: as many as there are",
    )
    epochs: int = _flag(3, "passes over the data, in expectation")
    batch_size: int = _flag(250, "expected batch size; each record joins with probability B/n")
    microbatches: int | None = _flag(None, "clipped vectors in a batch; default: one an example")

    def refuse_data(self) -> None:
        self.refuse_values(counts=("epochs", "batch_size"))
        require(
            self.dataset_size is None or self.batch_size <= self.dataset_size,
            "batch_size",
            self.batch_size,
            f"must be at most n = {self.dataset_size}; lower --batch-size",
        )
        count = self.microbatches
        require(
            count is None or (count >= 1 and self.batch_size % count == 0),
            "microbatches",
            count,
            f"must divide the batch of {self.batch_size}; choose a divisor",
        )


@dataclass(frozen=True, kw_only=True)
class Promise(_Group):
    """privacy"""

    dp: bool = _flag(True, "train with differential privacy; --no-dp for the same run without")
    clip_norm: float = _flag(1.5, "L2 norm each microbatch's gradient is clipped to")
    clip_schedule: str = _flag("constant", f"clip norm {_SHAPE}")
    noise_multiplier: float | None = _flag(1.3, "deviation of the noise / clip norm")
    noise_schedule: str = _flag(
        "constant", "noise multiplier by step, likewise; scaled by calibration"
    )
    epsilon: float | None = _flag(
        None,
        "budget: alone, the noise is calibrated to it; with --noise-multiplier, a hard stop",
    )
    delta: float = _flag(1e-5, "δ of the guarantee; keep it below 1/n")
    privacy_unit: str = _flag(
        "record",
        "whom ε protects: record, or a column of ids in the data (drug_id, patient_id, …)",
    )
    rows_per_unit: int = _flag(
        6, "rows of such a unit that are averaged and clipped as one, at most"
    )

    def refuse_promise(self) -> None:
        self.refuse_values(
            positive=("clip_norm", "noise_multiplier", "epsilon"), counts=("rows_per_unit",)
        )
        require(0 < self.delta < 1, "delta", self.delta, "must lie in (0, 1); try --delta 1e-5")
        require(
            not self.dp or self.noise_multiplier is not None or self.epsilon is not None,
            "noise_multiplier",
            None,
            "a private run needs --noise-multiplier or --epsilon; or pass --no-dp",
        )
        self.refuse_schedules("clip_schedule", "noise_schedule")


@dataclass(frozen=True, kw_only=True)
class Releases(_Group):
    """other releases from the same budget"""

    statistics_epsilon: float | None = _flag(
        None, "ε spent on feature means and scales (Laplace noise); none: as they are"
    )
    frequencies_epsilon: float | None = _flag(
        None, "ε spent on label frequencies, which the model starts from (Laplace noise)"
    )
    select_features: int | None = _flag(None, "keep so many features, chosen privately")
    selection_epsilon: float = _flag(0.1, "ε spent on that choice (exponential mechanism)")
    label_epsilon: float | None = _flag(
        None, "instead of DP-SGD: randomize each label, private at this ε, and train on those"
    )

    def refuse_releases(self) -> None:
        self.refuse_values(
            positive=(
                "statistics_epsilon",
                "frequencies_epsilon",
                "selection_epsilon",
                "label_epsilon",
            ),
            counts=("select_features",),
        )


@dataclass(frozen=True, kw_only=True)
class Held(_Group):
    """validation"""

    folds: int = _flag(
        1,
        "cross-validate: so many models, one budget for all; their validation is private unless "
        "--validation says otherwise",
    )
    validation: str = _flag(
        "none",
        "rows kept out to watch: none, private or public; or for the choice that a search makes",
        choices=VALIDATIONS,
    )
    validation_noise: float = _flag(50.0, "deviation of a released score's noise / its bound")
    validation_bound: float = _flag(
        1.0, "largest score a unit can contribute to private validation"
    )
    patience: int | None = _flag(
        None, "stop after so many epochs without a better validation score"
    )
    plateau: int | None = _flag(None, "after so many, divide the learning rate by 10")
    keep_best: bool = _flag(False, "end with the epoch whose validation score was best")

    def refuse_held(self) -> None:
        self.refuse_values(
            positive=("validation_noise", "validation_bound"),
            counts=("folds", "patience", "plateau"),
        )
        watched = self.patience or self.plateau or self.keep_best or self.folds > 1
        require(
            not watched or self.validation in ("private", "public"),
            "validation",
            self.validation,
            "folds, patience, plateau and keep-best need rows to watch; pass --validation private",
        )


@dataclass(frozen=True, kw_only=True)
class Optimization(_Group):
    """optimizer"""

    optimizer: str = _flag("sgd", "what takes the noisy gradient", choices=OPTIMIZERS)
    learning_rate: float = _flag(0.25, "of the optimizer")
    rate_schedule: str = _flag("constant", f"learning rate {_SHAPE}")
    twin: bool = _flag(
        False, "train the non-private baseline from the same initial weights beside it"
    )

    def refuse_optimization(self) -> None:
        self.refuse_values(positive=("learning_rate",))
        self.refuse_schedules("rate_schedule")


@dataclass(frozen=True, kw_only=True)
class Machine(_Group):
    """machine"""

    physical_batch_size: int = _flag(
        128, "examples whose gradients are held at once; bounds memory only"
    )
    checkpoint_every: int = _flag(100, "steps between checkpoints, besides each epoch's end")
    device: str = _flag("cpu", "cpu, cuda, …")
    seed: int | None = _flag(None, "repeatable run; whoever knows the seed can subtract the noise")

    def refuse_machine(self) -> None:
        self.refuse_values(counts=("physical_batch_size", "checkpoint_every"))
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "must be ≥ 0")


GROUPS: tuple[type[_Group], ...] = (
    Data,
    Promise,
    Releases,
    Held,
    Optimization,
    Machine,
)
