"""The groups of a run's settings, each with its defaults and what it refuses by itself."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import InvalidValue
from dpsgd_torch.app.promise_settings import SHAPE, Promise
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.optim.asked import read
from dpsgd_torch.tasks.base import knob, require

OPTIMIZERS = ("sgd", "adam", "adamw", "adam-bc", "adamw-bc")
VALIDATIONS = ("none", "private", "public", "selection")


@dataclass(frozen=True, kw_only=True)
class Data:
    """data and batches"""

    preset: str = knob("mnist-tutorial", "where the defaults come from")
    dataset: str = knob("mnist", "what to train on")
    dataset_size: int | None = knob(
        None,
        "n, the number of training records, declared in public; none: as many as there are",
    )
    epochs: int = knob(3, "passes over the data, in expectation", rule="count")
    batch_size: int = knob(
        250,
        "expected batch size; each record joins with probability B/n; not given: at most n",
        rule="count",
    )
    microbatches: int | None = knob(None, "clipped vectors in a batch; default: one an example")

    def refuse_data(self) -> None:
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
class Releases:
    """other releases from the same budget"""

    statistics_epsilon: float | None = knob(
        None,
        "ε spent on feature means and scales (Laplace noise); none: as they are",
        rule="positive",
    )
    frequencies_epsilon: float | None = knob(
        None,
        "ε spent on label frequencies, which the model starts from (Laplace noise)",
        rule="positive",
    )
    select_features: int | None = knob(
        None, "keep so many features, chosen privately", rule="count"
    )
    selection_epsilon: float = knob(
        0.1, "ε spent on that choice (exponential mechanism)", rule="positive"
    )
    label_epsilon: float | None = knob(
        None,
        "instead of DP-SGD: randomize each label, private at this ε, and train on those",
        rule="positive",
    )


@dataclass(frozen=True, kw_only=True)
class Held:
    """validation"""

    folds: int = knob(
        1,
        "cross-validate: so many models, one budget for all; their validation is private unless "
        "--validation says otherwise",
        rule="count",
    )
    validation: str = knob(
        "none",
        "rows kept out to watch: none, private or public; or for the choice that a search makes",
        choices=VALIDATIONS,
    )
    validation_noise: float = knob(
        50.0, "deviation of a released score's noise / its bound", rule="positive"
    )
    validation_bound: float = knob(
        1.0, "largest score a unit can contribute to private validation", rule="positive"
    )
    patience: int | None = knob(
        None, "stop after so many epochs without a better validation score", rule="count"
    )
    plateau: int | None = knob(None, "after so many, divide the learning rate by 10", rule="count")
    keep_best: bool = knob(False, "end with the epoch whose validation score was best")

    def refuse_held(self) -> None:
        watched = self.patience or self.plateau or self.keep_best or self.folds > 1
        require(
            not watched or self.validation in ("private", "public"),
            "validation",
            self.validation,
            "folds, patience, plateau and keep-best need rows to watch; pass --validation private",
        )


@dataclass(frozen=True, kw_only=True)
class Audit:
    """audit"""

    audit: int | None = knob(
        None,
        "canaries in this very run, each in or out by its coin: ε from below beside ε from above",
        rule="count",
        bare=1000,
        since=3,
    )

    def refuse_audit(self, *, fits: bool, own: bool) -> None:
        require(
            self.audit is None or self.audit >= 10,
            "audit",
            self.audit,
            "must be at least 10 canaries; --audit alone puts in 1000",
        )
        require(
            self.audit is None or fits,
            "audit",
            self.audit,
            "needs one private model, each example clipped by itself, on features that are not "
            "chosen from the data, in Poisson samples; drop --no-dp, --folds, --microbatches, "
            "--select-features, --sampling",
        )
        require(
            self.audit is None or not own,
            "audit",
            self.audit,
            "scores independent noise on Poisson samples; drop --noise and --sampling, or --audit",
        )


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """optimizer"""

    optimizer: str = knob("sgd", "what takes the noisy gradient", choices=OPTIMIZERS)
    learning_rate: float = knob(0.25, "of the optimizer", rule="positive")
    rate_schedule: str = knob("constant", f"learning rate {SHAPE}")
    weight_decay: float = knob(0.0, "of the optimizer; apart from the gradient in adamw", since=3)
    noise_floor: float = knob(
        0.1,
        "least second moment of adam-bc and adamw-bc, corrected for the noise, in units of the "
        "noise's own",
        rule="positive",
        since=3,
    )
    average: str = knob(
        "none",
        "averaged weights in place of the last ones: ema:0.999, or tail:0.5 for the mean over the "
        "last half of the steps; free",
        since=3,
    )
    filter: str = knob(
        "none",
        "filter of the noisy gradient: doppler:0.9 (low-pass), disk:0.7 (Kalman); free",
        since=3,
    )
    views: int = knob(
        1,
        "augmented views of a record in each step, whose mean gradient is clipped as one; no "
        "further ε",
        rule="count",
        since=3,
    )
    qat: bool = knob(
        False,
        "quantisation-aware: trained through the rounding of int8, with ranges from the weights "
        "and made-up inputs; no further ε",
        since=3,
    )
    twin: bool = knob(
        False, "train the non-private baseline from the same initial weights beside it"
    )
    explain_loss: bool = knob(
        False,
        "nine short runs on made-up data after it, for report.html: what of the accuracy is lost "
        "to noise and what to the clip",
        since=3,
    )

    def refuse_optimization(self) -> None:
        require(
            0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "must lie in [0, 1]"
        )
        corrects = self.optimizer.endswith("-bc")
        rule = f"takes the noise's deviation as planned, which --filter {self.filter} changes; drop"
        for name in ("average", "filter"):
            value = getattr(self, name)
            try:
                kind, _ = read(name, value)
            except InvalidValue as error:
                raise ConfigError(str(error)) from error
            require(
                not (name == "filter" and corrects) or kind == "none",
                "optimizer",
                self.optimizer,
                f"{rule} one of them",
            )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """machine"""

    physical_batch_size: int | str = knob(
        "auto",
        "examples that a pass holds at once, or auto for what fits 1 GiB; bounds memory only",
        rule="count or auto",
    )
    checkpoint_every: int = knob(
        100, "steps between checkpoints, besides each epoch's end", rule="count"
    )
    device: str = knob("cpu", "cpu, cuda, …")
    precision: str = knob(
        "float32",
        "of forward and backward passes: float32, bf16, fp16, or fp16:4096 with its loss scale",
        since=3,
    )
    compile: bool = knob(
        False, "compile passes, norms and sums before the run begins, where they can be", since=3
    )
    shard: bool = knob(
        False,
        "of several processes (torchrun) each holds a part of parameters, sums, noise and optimizer"
        " state alone",
        since=3,
    )
    seed: int | None = knob(None, "repeatable run; whoever knows the seed can subtract the noise")


GROUPS: tuple[type, ...] = (
    Data,
    Promise,
    Releases,
    Held,
    Audit,
    Optimization,
    Machine,
)
