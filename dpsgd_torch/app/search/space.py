"""What a search varies, and what it proposes next."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.registry import TASKS

if TYPE_CHECKING:
    import optuna

_NEVER = {
    "preset", "dataset", "dp", "epsilon", "noise_multiplier", "secure", "seed", "twin",
    "label_epsilon",
}  # fmt: skip
_SAME = {
    "delta", "dataset_size", "validation", "validation_bound", "features", "privacy_unit",
    "rows_per_unit", "folds", "device", "noise", "sampling",
}  # fmt: skip
_MOST_CORNERS = 512


@dataclass(frozen=True)
class Dimension:
    """One field of the configuration: a range (low, high), or a choice among values."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def parse(cls, text: str, *, one: bool = False) -> Dimension:
        """``name=low:high``, ``name=low:high:log`` or ``name=a,b,c``; with ``one``, ``name=value``.

        >>> Dimension.parse("learning_rate=0.001:0.1:log")
        Dimension(name='learning_rate', choices=(), low=0.001, high=0.1, log=True)
        >>> Dimension.parse("epochs=10,20").choices
        (10, 20)
        """
        name, _, values = text.partition("=")
        name = name.replace("-", "_")
        kind = _kind(name, _NEVER if one else _NEVER | _SAME)
        try:
            if one:
                return cls(name, (kind(values),))
            if ":" in values:
                low, high, *rest = values.split(":")
                if kind is float and rest in ([], ["log"]) and 0 < float(low) < float(high):
                    return cls(name, (), float(low), float(high), bool(rest))
            elif values:
                return cls(name, tuple(kind(value) for value in values.split(",")))
        except ValueError:
            pass
        raise ConfigError(
            f"vary = {text}: must be name=low:high[:log] with 0 < low < high for a number, or "
            "name=a,b,c"
        )

    def propose(self, trial: optuna.Trial) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def _kind(name: str, barred: set[str]) -> type:
    types = {**get_type_hints(RunConfig)}
    types.pop("task")
    for task in TASKS.values():
        types |= get_type_hints(task.knobs)
    if name not in types or name in barred:
        known = ", ".join(sorted(set(types) - barred))
        raise ConfigError(f"{name}: cannot be set or varied here; choose among {known}")
    kind: type = next(iter(get_args(types[name])), types[name])
    return kind


def default_space(config: RunConfig) -> list[Dimension]:
    """Learning rate and clip norm, a factor of ten either way of the preset's."""
    return [
        Dimension(name, (), getattr(config, name) / 10, getattr(config, name) * 10, True)
        for name in ("learning_rate", "clip_norm")
    ]


def corners(space: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Every choice with every end of a range, up to some hundred: what a trial may be asked for.

    >>> space = [Dimension("epochs", (1, 2)), Dimension("dropout", (), 0.1, 0.5)]
    >>> [corner["dropout"] for corner in corners(space)]
    [0.1, 0.5, 0.1, 0.5]
    """
    names = [dimension.name for dimension in space]
    ends = [dimension.choices or (dimension.low, dimension.high) for dimension in space]
    for values in itertools.islice(itertools.product(*ends), _MOST_CORNERS):
        yield dict(zip(names, values, strict=True))


def proposal(
    space: Sequence[Dimension],
    sampler: str,
    seed: int,
    number: int,
    past: Sequence[tuple[dict[str, Any], float]],
) -> dict[str, Any]:
    """The values of trial ``number``: the same whenever it is asked again.

    * "random": a draw of its own, whatever came before.
    * "tpe": in view of ``past``, pairs of values and score.
    * Optuna's own key has 32 bits, few enough to find it from published values. It is a digest of
      the search's secret ``seed`` and ``number``, so that it does not tell the number: which of the
      trials was the best must stay secret.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    key = int.from_bytes(hashlib.sha256(f"{seed:x} {number}".encode()).digest()[:4], "big")
    kinds = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    study = optuna.create_study(sampler=kinds[sampler](seed=key))
    if sampler == "tpe":
        laws = {d.name: _law(d) for d in space}
        for values, score in past:
            if math.isfinite(score):
                study.add_trial(
                    optuna.trial.create_trial(params=values, distributions=laws, value=score)
                )
    trial = study.ask()
    return {dimension.name: dimension.propose(trial) for dimension in space}


def _law(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    import optuna

    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
