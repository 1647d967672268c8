"""The groups of a run's settings, each with its defaults and what it refuses by itself."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import InvalidValue
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.optim.asked import read
from dpsgd_torch.samplers.registry import parsed, words
from dpsgd_torch.schedules import GRAMMAR
from dpsgd_torch.tasks.base import knob, require

OPTIMIZERS = ("sgd", "adam", "adamw", "adam-bc", "adamw-bc")
FACTORS = ("bandmf", "bandinvmf", "blt", "banded_sqrt", "banded_inverse_sqrt")
GENERATORS = ("numpy", "blocks", "philox")
VALIDATIONS = ("none", "private", "public", "selection")
_SHAPE = f"by step, as factors of the first value: {GRAMMAR}, or @FILE of lines step,factor"


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
        250, "expected batch size; each record joins with probability B/n", rule="count"
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
class Promise:
    """privacy"""

    dp: bool = knob(True, "train with differential privacy; --no-dp for the same run without")
    clip_norm: float = knob(
        1.5, "L2 norm each microbatch's gradient is clipped to", rule="positive"
    )
    clip_schedule: str = knob("constant", f"clip norm {_SHAPE}")
    clipping: str = knob(
        "flat",
        "how it is cut to that norm: flat; automatic[:γ], normalised; adaptive:QUANTILE[:RATE], "
        "the norm follows a quantile that each step tells and pays; per-layer[:size]",
        since=3,
    )
    noise_multiplier: float | None = knob(
        1.3, "deviation of the noise / clip norm", rule="positive"
    )
    noise_schedule: str = knob(
        "constant", "noise multiplier by step, likewise; scaled by calibration"
    )
    noise: str = knob(
        "independent",
        "independent in each step; or correlated:KIND:BANDS, noise that later steps take off again "
        "in part, by a factorization of so many bands (blt: buffers), as correlated:bandmf:16; "
        f"KIND {' or '.join(FACTORS)}",
        since=3,
    )
    sampling: str = knob(
        "auto",
        f"how batches are drawn, as KIND or KIND:NUMBER: {words()}; auto is poisson, or cyclic "
        "with as many parts as bands where noise is correlated",
        since=3,
    )
    noise_generator: str = knob(
        "numpy",
        "what draws the noise: numpy on the CPU; blocks, the same by parts, of which each of "
        "several processes draws its own; or philox where the model is, many times as fast on a "
        "GPU (other numbers of the same law each)",
        choices=GENERATORS,
        since=3,
    )
    epsilon: float | None = knob(
        None,
        "budget: alone, the noise is calibrated to it; with --noise-multiplier, a hard stop",
        rule="positive",
    )
    advantage: float | None = knob(
        None,
        "in place of ε: any attacker's true less false positives, not to be passed",
        since=3,
    )
    tpr_at_fpr: str | None = knob(
        None,
        "in place of ε: true positives not to be passed at a rate of false ones, as 0.02@0.001",
        since=3,
    )
    delta: float = knob(1e-5, "δ of the guarantee; keep it below 1/n")
    secure: bool = knob(
        False,
        "noise exact to the last bit, it and the samples from a cryptographic generator",
        since=3,
    )
    privacy_unit: str = knob(
        "record",
        "whom ε protects: record, or a column of ids in the data (drug_id, patient_id, …)",
    )
    rows_per_unit: int = knob(
        6, "rows of such a unit that are averaged and clipped as one, at most", rule="count"
    )

    def refuse_promise(self) -> None:
        require(0 < self.delta < 1, "delta", self.delta, "must lie in (0, 1); try --delta 1e-5")
        require(
            not self.dp
            or not (self.noise_multiplier is None and self.epsilon is None)
            or not (self.advantage is None and self.tpr_at_fpr is None),
            "noise_multiplier",
            None,
            "a private run needs --noise-multiplier or --epsilon; or pass --no-dp",
        )
        risks = [r for r in (self.advantage, self.tpr_at_fpr) if r is not None]
        others = self.noise_multiplier is not None or self.epsilon is not None
        require(
            not risks or not (others or len(risks) > 1),
            "advantage" if self.advantage is not None else "tpr_at_fpr",
            risks[0] if risks else None,
            "stands alone, in place of --epsilon and --noise-multiplier; drop the others",
        )
        require(
            self.advantage is None or 0 < self.advantage < 1,
            "advantage",
            self.advantage,
            "must lie strictly between 0 and 1",
        )
        self.tpr_and_fpr()
        factor = self.factorization()
        try:
            parsed(self.sampler())
        except InvalidValue as error:
            raise ConfigError(str(error)) from error
        kind = self.sampler().partition(":")[0]
        told = f"must be cyclic or passes where noise is {self.noise}"
        fit = factor is None or kind in ("cyclic", "passes")
        require(not self.dp or fit, "sampling", self.sampling, told)
        require(
            factor is None or (self.noise_generator == "numpy" and not self.secure),
            "noise",
            self.noise,
            "is drawn by numpy and not exactly; drop --noise-generator and --secure",
        )
        require(
            not (self.secure and self.dp) or kind != "passes",
            "sampling",
            self.sampling,
            "is not for exact noise, which is charged for samples of Poisson's law; drop --secure",
        )
        constant = self.clip_schedule == self.noise_schedule == "constant"
        require(
            kind not in ("cyclic", "passes") or constant,
            "noise" if factor else "sampling",
            self.noise if factor else self.sampling,
            "pays for several steps at once; drop --clip-schedule and --noise-schedule",
        )

    def sampler(self) -> str:
        """The kind of sampler, and its number: what ``auto`` stands for."""
        factor = self.factorization()
        if factor and self.sampling in ("auto", "cyclic"):
            return f"cyclic:{factor[1]}"
        return "poisson" if self.sampling == "auto" else self.sampling

    def factorization(self) -> tuple[str, int] | None:
        """Kind and bands of the correlated noise that was asked for, if any was."""
        if self.noise == "independent":
            return None
        word, _, rest = self.noise.partition(":")
        kind, _, count = rest.partition(":")
        bands = int(count) if count.isdecimal() else 0
        require(
            word == "correlated" and kind in FACTORS and bands >= 1,
            "noise",
            self.noise,
            f"must be independent, or correlated:KIND:BANDS with KIND {' or '.join(FACTORS)} and "
            "BANDS a whole number; try correlated:bandmf:16",
        )
        return kind, bands

    def tpr_and_fpr(self) -> tuple[float, float] | None:
        """The two rates of ``tpr_at_fpr``."""
        if self.tpr_at_fpr is None:
            return None
        try:
            tpr, fpr = map(float, self.tpr_at_fpr.split("@"))
        except ValueError:
            tpr, fpr = 0.0, 0.0
        rule = "must be TPR@FPR with 0 < FPR < TPR < 1; try 0.02@0.001"
        require(0 < fpr < tpr < 1, "tpr_at_fpr", self.tpr_at_fpr, rule)
        return tpr, fpr


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
    rate_schedule: str = knob("constant", f"learning rate {_SHAPE}")
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
