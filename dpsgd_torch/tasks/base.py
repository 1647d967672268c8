"""Task kinds: what the application asks of a task before, beside and after its data."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dpsgd_torch.errors import ConfigError, ExportError
from dpsgd_torch.features.model_files.named import ModelFile

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.features.sound import Frontend
    from dpsgd_torch.tasks.task import Task


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "count": (lambda value: value >= 1, "must be a whole number ≥ 1"),
    "count or auto": (
        lambda value: value == "auto" or (type(value) is int and value >= 1),
        "must be a whole number ≥ 1, or auto",
    ),
    "positive": (lambda value: 1e-6 <= value <= 1e6, "must lie between 1e-6 and 1e6"),
    "fraction": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
}


def knob(default: Any, help: str, **options: Any) -> Any:
    """A field that is a flag: its default, its help, and what else holds of it.

    Args:
        options: ``choices``; ``rule``, "count", "count or auto", "positive" or "fraction" where it
            is not None; ``bare``, what the flag means without a value; ``since``, the version of
            config.json that first had it, 1 unless said: in older ones the default stands for it.
    """
    return dataclasses.field(default=default, metadata={"help": help, **options})


def require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {value}: {rule}")


def refuse_values(settings: Any) -> None:
    """Refuse the first field whose value its own choices or rule do not allow."""
    for each in dataclasses.fields(settings):
        value, choices = getattr(settings, each.name), each.metadata.get("choices")
        if choices:
            require(value in choices, each.name, value, f"must be one of {', '.join(choices)}")
        if (rule := each.metadata.get("rule")) and value is not None:
            holds, words = _RULES[rule]
            require(holds(value), each.name, value, words)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """A task's own settings, each a flag; a kind without any has these."""

    def __post_init__(self) -> None:
        refuse_values(self)

    @property
    def class_labels(self) -> bool:
        """Whether each example has one class, scored by cross-entropy on logits."""
        return True

    @property
    def declared_columns(self) -> str:
        """The setting whose model reads a table's columns as declared; empty where none does."""
        return ""


_MADE_UP = ("digits", "signs", "things", "objects", "leaves", "none")


@dataclass(frozen=True, kw_only=True)
class ImageKnobs(Knobs):
    """Those of a small CNN, or of a linear head on fixed features."""

    dropout: float = knob(0.0, "before the last layer", rule="fraction")
    transform: str = knob(
        "none",
        "what the model is given: the image, or its scattering transform, under a linear head",
        choices=("none", "scattering"),
        since=3,
    )
    features_from: str = knob(
        "none",
        "a frozen model of yours, whose values the head is given, too: FILE.onnx, FILE.pt2 "
        "(torch.export.save) or FILE.pt (TorchScript); config.json keeps its digest",
        since=3,
    )
    whitened_by: str = knob(
        "digits",
        "the made-up images whose principal directions whiten the transform",
        choices=_MADE_UP,
        since=3,
    )
    pretrained_on: str = knob(
        "none",
        "the made-up images that a CNN learnt, whose last hidden layer is given as well",
        choices=("digits", "signs", "things", "none"),
        since=3,
    )
    kernels: int = knob(
        0, "random convolutions as well, cut from the made-up images that whiten; 0: none", since=3
    )
    prior: bool = knob(
        True,
        "allow made-up images that know the classes; --no-prior puts random signs there",
        since=3,
    )
    begun: bool = knob(
        False,
        "begin the head from made-up images of the classes, where prior and classes allow it",
        since=3,
    )
    directions: int = knob(400, "principal directions that are kept", rule="count", since=3)
    ridge: float = knob(0.3, "variance that is added in whitening", rule="positive", since=3)
    scales: int = knob(2, "of the transform: each halves its sides", rule="count", since=3)
    keep_features: bool = knob(
        True, "keep them, private rows' too, in the user's cache (mode 0700)", since=3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kernels >= 0, "kernels", self.kernels, "must be a whole number ≥ 0")
        require(
            not self.kernels or self.whitened_by != "none",
            "kernels",
            self.kernels,
            "are cut from the images that whiten; drop it, or --whitened-by none",
        )
        require(self.scales <= 2, "scales", self.scales, "must be 1 or 2")
        if self.features_from != "none":
            sealed = str(ModelFile.named(self.features_from))
            object.__setattr__(self, "features_from", sealed)
        require(
            not (self.fixed and self.dropout),
            "dropout",
            self.dropout,
            "is for the CNN; drop it, or --transform and --features-from",
        )

    @property
    def fixed(self) -> bool:
        """Whether the model is a head on fixed features, in place of a CNN."""
        return self.transform != "none" or self.features_from != "none"


@dataclass(frozen=True)
class PresetValues:
    """A preset as data: the settings that are not the application's defaults, and their story."""

    name: str
    summary: str
    claim: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    follow: Callable[[float], Mapping[str, Any]] | None = None
    """ε → the settings that follow it, where they were not given."""
    chosen: str = ""
    """How the settings were chosen, and on which data, for the statement."""


class TaskKind(ABC):
    """A task by name: its knobs and presets at once, its data, model and torch when asked.

    This module and a kind's own load no torch, so that ``--help`` does not.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    """In words, after "is for"."""
    knobs: ClassVar[type[Knobs]] = Knobs
    presets: ClassVar[tuple[PresetValues, ...]] = ()
    tabular: ClassVar[bool] = False
    """Whether feature statistics, frequencies and a choice of features can be released of it."""
    may_be_synthetic: ClassVar[bool] = False
    not_made_up: ClassVar[str] = "none is made up for this task"
    """Why there is no made-up data to train on, empty where ``made_up`` gives some."""
    units: ClassVar[tuple[str, ...]] = ()
    """Ids that its rows can have, whose privacy can be asked for, of a task that is exported."""
    calibration: ClassVar[str] = "plain"
    """By which its model becomes integers, where nothing else is asked: a name of the export's."""
    not_exported: ClassVar[str] = ""
    """Why its model is not carried to a microcontroller, and what to do instead."""

    @abstractmethod
    def load(self, knobs: Any, data_dir: Path | None, partial: str) -> Task:
        """The task with its data.

        Raises:
            DataError: data that is missing, damaged or not what it claims.
        """

    def architecture(self, knobs: Any, labels: tuple[str, ...]) -> nn.Module:
        """The model, untrained, without its data: what an export loads the weights into."""
        raise ExportError(f"task = {self.name}: does not tell its model; override architecture")

    def public_inputs(self, knobs: Any) -> Callable[[int], torch.Tensor]:
        """count → so many inputs of its kind, made without its data."""
        raise ExportError(f"task = {self.name}: makes no inputs; override public_inputs")

    def made_up(self, knobs: Any, rows: int, test_rows: int) -> Task:
        """The task on so many rows made up to train and to test on; its data is not read."""
        raise ConfigError(f"task = {self.name}: {self.not_made_up}; override made_up")

    def takes_presets_of(self, other: TaskKind) -> bool:
        """Whether another task's presets fit it: the same models on data of the same form."""
        return isinstance(self, type(other)) or isinstance(other, type(self))

    def input_range(self, knobs: Any) -> tuple[float, float]:
        """What every input value lies in."""
        frontend = self.frontend(knobs)
        return frontend.input_range if frontend else (0.0, 1.0)

    def frontend(self, knobs: Any) -> Frontend | None:
        """What makes the model's inputs of sound on a board; None: they are no sound."""
        return None

    def output(self, knobs: Any) -> str:
        """What the model's last layer tells: "logits" or "probabilities"."""
        return "logits"
