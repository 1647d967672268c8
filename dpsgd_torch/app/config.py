"""The whole configuration of a run, frozen; it refuses what cannot be run when it is built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accountant import Event, InvalidValue
from dpsgd_torch.app.promise_settings import Promise
from dpsgd_torch.app.settings import (
    Audit,
    Data,
    Held,
    Machine,
    Optimization,
    Releases,
)
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.precision import Precision
from dpsgd_torch.schedules import Schedule, shape_from_text
from dpsgd_torch.tasks.base import Knobs, refuse_values, require
from dpsgd_torch.tasks.registry import TASKS, kind_of

if TYPE_CHECKING:
    from dpsgd_torch.privacy.privacy import Privacy

VERSION = 3  # of config.json; 1 had none, and the tasks' knobs among the rest
_DEFAULTS = Knobs()  # of whichever task


@dataclass(frozen=True, kw_only=True)
class RunConfig(Machine, Optimization, Audit, Held, Releases, Promise, Data):
    """What determines a run: the groups of ``settings``, and the task's own knobs.

    Every field is a flag of ``python -m dpsgd_torch.train``.

    >>> RunConfig(dataset="digits").task
    ImageKnobs(dropout=0.0, ...)
    """

    task: Knobs = _DEFAULTS

    def __post_init__(self) -> None:
        kind = kind_of(self.dataset)
        if type(self.task) is Knobs:
            object.__setattr__(self, "task", kind.knobs())
        require(
            type(self.task) is kind.knobs,
            "task",
            type(self.task).__name__,
            f"must be {kind.knobs.__name__}, as {self.dataset} has it",
        )
        refuse_values(self)
        Precision.of(self.precision)
        self.refuse_data()
        self.refuse_promise()
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "must be ≥ 0")
        require(
            not self.secure or self.seed is None,
            "secure",
            self.secure,
            "takes its key from the operating system, not from a seed; drop --seed or --secure",
        )
        others = [
            *(["--precision"] if Precision.of(self.precision).is_mixed else []),
            *(["--compile"] if self.compile else []),
            *(["--noise-generator"] if self.noise_generator != "numpy" else []),
            *(["--shard"] if self.shard else []),
        ]
        require(
            not (self.secure and self.dp) or not others,
            "secure",
            self.secure,
            "has noise of its own, and charges for the rounding of float32 passes that are not "
            f"compiled; drop --secure or {' and '.join(others)}",
        )
        whole = self.noise_generator == "philox" or self.keep_best or self.noise != "independent"
        require(
            not self.shard or not whole,
            "shard",
            self.shard,
            "draws noise by blocks and never holds the model whole; drop --shard, or "
            "--noise, --noise-generator philox and --keep-best",
        )
        self._refuse_clipping()
        for name in ("clip_schedule", "noise_schedule", "rate_schedule"):
            try:
                shape_from_text(getattr(self, name), 2)
            except (ConfigError, InvalidValue) as error:
                raise ConfigError(f"{name} = {getattr(self, name)}: {error}") from error
        for name in ("statistics_epsilon", "frequencies_epsilon", "select_features"):
            value = getattr(self, name)
            require(
                kind.tabular or value is None, name, value, "is for tabular data (--preset moa)"
            )
            reads = self.task.declared_columns
            require(
                name == "frequencies_epsilon" or value is None or not reads,
                name,
                value,
                f"moves columns that {reads} reads as declared; drop one of them",
            )
        self.refuse_optimization()
        self.refuse_released()
        self._refuse_rounding(kind.not_exported)
        require(
            not self.explain_loss or self.dp,
            "explain_loss",
            self.explain_loss,
            "explains what privacy costs; drop it, or --no-dp",
        )
        require(
            not self.explain_loss or not kind.not_made_up,
            "explain_loss",
            self.explain_loss,
            f"needs made-up data of known classes; {kind.not_made_up}; drop --explain-loss",
        )
        self.refuse_held()
        require(  # it would be refused by the coins, or by one record more
            not self.sampling.startswith("truncated") or self.validation == "none",
            "sampling",
            self.sampling,
            "counts on a declared number of records at most, and who is held out is drawn; drop "
            "--validation and --folds, or take --sampling poisson",
        )
        alone = self.folds == 1 and self.microbatch_size == 1 and self.select_features is None
        alone = alone and (self.sampler() == "poisson" or self.noise != "independent")
        self.refuse_audit(fits=self.dp and alone, own=self.noise != "independent")
        require(
            self.label_epsilon is None
            or (not self.dp and self.task.class_labels and self.folds == 1),
            "label_epsilon",
            self.label_epsilon,
            "takes the place of DP-SGD, for class labels under cross-entropy, without folds; pass "
            "--no-dp too",
        )
        require(
            self.privacy_unit == "record" or self.microbatch_size == 1,
            "microbatches",
            self.microbatches,
            "a unit's rows are its microbatch; drop one or the other",
        )

    def _refuse_clipping(self) -> None:
        """What the clip does not go with; what it is called is looked up where it is not flat."""
        kind = self.clipping.partition(":")[0]
        if kind == "flat":
            return
        from dpsgd_torch.clipping.kinds import clipping_of  # with torch: after --help

        clipping_of(self.clipping)
        against = {
            "secure": self.secure,
            "compile": self.compile and kind == "per-layer",
            "audit": self.audit is not None and kind == "per-layer",
            "shard": self.shard and kind == "adaptive",
            "clip-schedule": self.clip_schedule != "constant" and kind == "adaptive",
        }
        others = [f"--{name}" for name, held in against.items() if held]
        rule = f"does not go with {' and '.join(others)}; drop one or the other"
        require(not (self.dp and others), "clipping", self.clipping, rule)

    def _refuse_rounding(self, not_exported: str) -> None:
        """Quantisation-aware training where no integers follow, or another rounding is meant."""
        require(not self.qat or not not_exported, "qat", self.qat, f"{not_exported}; drop --qat")
        others = [
            *(["--secure"] if self.secure else []),  # its bound on rounding has no such steps
            *(["--compile"] if self.compile else []),
            *(["--precision"] if Precision.of(self.precision).is_mixed else []),
            *(["--shard"] if self.shard else []),
        ]
        require(
            not self.qat or not others,
            "qat",
            self.qat,
            "rounds in float32 passes that are not compiled, on whole models; drop it, or "
            f"{' and '.join(others)}",
        )

    def refuse_released(self) -> None:
        """Refuse views and post-processing beside what they cannot be had with."""
        asked = {"average": self.average, "filter": self.filter}
        for name, value in asked.items():
            require(
                not self.shard or value == "none",
                name,
                value,
                "holds tensors of the whole model, and --shard none; drop one of them",
            )
        others = [
            *(["--microbatches"] if self.microbatch_size > 1 else []),
            *(["--privacy-unit"] if self.privacy_unit != "record" else []),
            *(["--secure"] if self.secure else []),
            *(["--compile"] if self.compile else []),
            *(["--label-epsilon"] if self.label_epsilon else []),
        ]
        require(
            self.views == 1 or not others,
            "views",
            self.views,
            f"share a slot, in float32 passes that are not compiled; drop {' and '.join(others)}",
        )

    @property
    def microbatch_size(self) -> int:
        return self.batch_size // (self.microbatches or self.batch_size)

    def changed(self, **values: Any) -> RunConfig:
        """The same with other values, by the names of flags, the task's knobs among them.

        >>> RunConfig(dataset="digits").changed(dropout=0.5, epochs=1).task
        ImageKnobs(dropout=0.5, ...)
        """
        kind = kind_of(values.get("dataset", self.dataset))
        own, settings = set(knob_names(kind.knobs)), {f.name for f in dataclasses.fields(self)}
        for name in own & settings:
            raise ConfigError(f"{kind.name}: its knob {name} is a setting of every run; rename it")
        foreign = {n: v for n, v in values.items() if n not in own | settings}
        for name, value in foreign.items():
            fit = [each for each in TASKS.values() if name in knob_names(each.knobs)]
            words = " and ".join(dict.fromkeys(each.what for each in fit)) or "no task"
            raise ConfigError(f"{name} = {value}: is for {words}, not {kind.name}; drop it")
        knobs = {name: values.pop(name) for name in own if name in values}
        before = self.task if type(self.task) is kind.knobs else kind.knobs()
        return dataclasses.replace(self, task=dataclasses.replace(before, **knobs), **values)

    def privacy(self, steps: int, also: tuple[tuple[Event, int], ...] = ()) -> Privacy | None:
        """The promise this configuration asks for, beside what else it releases."""
        if not self.dp:
            return None
        from dpsgd_torch.clipping.kinds import clipping_of  # with torch: after --help
        from dpsgd_torch.noise.blocks import BLOCKS
        from dpsgd_torch.noise.correlated import Correlated
        from dpsgd_torch.noise.grid import GRID
        from dpsgd_torch.noise.independent import INDEPENDENT
        from dpsgd_torch.noise.on_device import ON_DEVICE
        from dpsgd_torch.privacy.privacy import Privacy

        factor = self.factorization()
        generators = {
            "numpy": Correlated(*factor) if factor else INDEPENDENT,
            "blocks": BLOCKS,
            "philox": ON_DEVICE,
        }
        return Privacy(
            epsilon=self.epsilon,
            delta=self.delta,
            clip_norm=self._schedule(self.clip_norm, self.clip_schedule, steps),
            noise_multiplier=None
            if self.noise_multiplier is None
            else self._schedule(self.noise_multiplier, self.noise_schedule, steps),
            advantage=self.advantage,
            tpr_at_fpr=self.tpr_and_fpr(),
            noise_shape=self._schedule(1.0, self.noise_schedule, steps),
            microbatch_size=self.microbatch_size,
            dataset_size=self.dataset_size,
            unit=self.privacy_unit,
            also=also,
            runs=self.folds,
            clipping=clipping_of(self.clipping),
            noise=GRID if self.secure else generators[self.noise_generator],
        )

    def rates(self, steps: int) -> Schedule:
        """By what the learning rate is multiplied at each step."""
        return self._schedule(1.0, self.rate_schedule, steps)

    @staticmethod
    def _schedule(first: float, text: str, steps: int) -> Schedule:
        return shape_from_text(text, steps).scaled(first)

    def to_json(self) -> dict[str, Any]:
        """All fields, but of the seed, which the noise rests on, only whether there is one."""
        fields = dataclasses.asdict(self)
        return {"version": VERSION, **fields, "seed": self.seed is not None}


def knob_names(knobs: type[Knobs]) -> list[str]:
    return [field.name for field in dataclasses.fields(knobs)]


def is_knob(name: str) -> bool:
    """Whether some task has a knob of that name."""
    return any(name in knob_names(kind.knobs) for kind in TASKS.values())
