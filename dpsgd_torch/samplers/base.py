"""Sampler interface: one object draws the batches, prices them and describes itself in words."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from accountant import Event, Gaussian, NoCost, Relation, dpsgd_event
from accountant.errors import check
from dpsgd_torch.data.units import Indices, UnitRows, Weights
from dpsgd_torch.samplers.rows import assign_slots


class Generators(Protocol):
    """Streams by name, each at its start: this step's, or that of a step it shares a draw with."""

    def __call__(self, name: str, /, *, step: int = ...) -> np.random.Generator: ...


@dataclass(frozen=True)
class Batch:
    """Who is in one batch: rows, their slots, and their weights within a slot (None: all 1)."""

    rows: Indices
    slots: Indices
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class Sampler(abc.ABC):
    """A law by which batches are drawn, from declared, public numbers.

    * Each record of a batch is put, independently of the others, into one of ``microbatches``
      slots; with a microbatch size of 1 each has a slot of its own.
    * Where the ``unit`` of privacy has several rows (a drug, a patient), a record above is such a
      unit with all its rows: units are counted and sampled. At most ``rows_per_unit`` of a
      unit's rows, drawn afresh from its own at each step, are averaged and clipped as one vector.
    * ``batch_size`` is what a batch holds in expectation. One of more than twice as much, and a
      hundred, must be out of the question, since sums are kept exact up to there: it ends the run.

    * ``period`` says what the law makes of steps together: in that many in a row nobody takes part
      twice, at whichever step they begin, so that all of them cost what one does.

    A kind states its own law as bullets here, and overrides ``draw``, ``event`` and ``describe``.
    """

    name: ClassVar[str]
    relation: ClassVar[Relation] = Relation.ADD_OR_REMOVE_ONE
    checks_noise: ClassVar[bool] = False  # says itself where noise may change by step

    dataset_size: int
    batch_size: int
    microbatch_size: int = 1
    steps: int
    unit: str = "record"
    rows_per_unit: int | None = None

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps", self.steps, "must be at least 1", "raise epochs")
        rows = self.rows_per_unit
        check(rows is None or rows >= 1, "rows_per_unit", rows, "must be at least 1")
        check(
            rows is None or self.microbatch_size == 1,
            "microbatch_size",
            self.microbatch_size,
            "must be 1 where a unit has several rows: its rows are the microbatch",
        )
        dpsgd_event(  # which checks the sizes against each other
            dataset_size=self.dataset_size,
            batch_size=self.batch_size,
            microbatch_size=self.microbatch_size,
            noise_multiplier=0.0,
        )
        stated, priced = self.relation.value, self.event(0.0).relation.value
        check(priced == stated, "relation", priced, f"must be the sampler's own, {stated}")

    @abc.abstractmethod
    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        """Who is in the batch of ``step``: of so many records, or of ``units`` with their rows."""

    @abc.abstractmethod
    def event(self, noise_multiplier: float) -> Event:
        """What one release of the clipped sum over such a batch costs."""

    @property
    def period(self) -> int:
        """So many steps in a row at most in which nobody can be twice."""
        return 1

    def charges(self, step: int, noise_multiplier: float, first: int = 0) -> Event:
        """What ``step`` costs in an attempt that began at ``first``, of one noise multiplier.

        Each period is paid at its first step: a record is in one of its steps at most, and what it
        does not take part in costs it nothing (parallel composition). Where several steps are one
        event for another reason: all of it at the first of them or at ``first``, by the same event,
        and ``NoCost()`` for the others.
        """
        if (step - first) % self.period:
            return NoCost(relation=self.relation)
        return self.event(noise_multiplier)

    def check_noise(self, at: Callable[[int], float]) -> None:
        """Refuse a noise multiplier by step under which the law has no analysis."""
        del at

    def check_records(self, records: int) -> None:
        """Refuse more records, or units, than the analysis is of, before anything is charged."""
        del records

    @abc.abstractmethod
    def describe(self) -> str:
        """How a record gets into a batch, as a clause that can follow "in each step"."""

    def to_json(self) -> dict[str, Any]:
        """What a resumed run must share with the run it resumes."""
        return {"sampler": self.name, **dataclasses.asdict(self)}

    @property
    def rate(self) -> float:
        return self.batch_size / self.dataset_size

    @property
    def microbatches(self) -> int:
        """The declared number of clipped vectors in a batch: the divisor of the noisy sum."""
        return self.batch_size // self.microbatch_size

    @property
    def sensitivity(self) -> int:
        """By how many clip norms neighbours can move the sum: 2 where a vector is exchanged."""
        exchanged = self.microbatch_size > 1 or self.relation is not Relation.ADD_OR_REMOVE_ONE
        return 2 if exchanged else 1

    def release(self, noise_multiplier: float) -> Gaussian:
        """The Gaussian release of a sum over everybody, against this sensitivity."""
        return Gaussian(
            noise_multiplier=noise_multiplier / self.sensitivity, relation=self.relation
        )

    def most(self) -> int:
        """So many records, or units, no batch of this law holds."""
        return 2 * self.batch_size + 100

    def likely_rows(self) -> int:
        """So many rows at most a step is likely to draw."""
        drawn = self.batch_size + 4 * math.sqrt(self.batch_size)
        return math.ceil(drawn) * (self.rows_per_unit or 1)

    def in_slots(self, stream: Generators, members: Indices, units: UnitRows | None) -> Batch:
        """The batch of these records, or of these units: their rows, slots and weights."""
        if units and self.rows_per_unit:
            return Batch(*units.sample(stream("rows"), members, self.rows_per_unit))
        if self.microbatch_size == 1:
            return Batch(members, np.arange(members.size))
        slots = assign_slots(stream("slots"), members, self.microbatches)
        return Batch(members, slots, np.full(members.size, 1 / self.microbatch_size, np.float32))

    def describe_vectors(self, noise_multiplier: float) -> str:
        """How rows become clipped vectors, as sentences; empty where each row is one."""
        words = ""
        if self.rows_per_unit:
            words = (
                f" Of a {self.unit}'s rows at most {self.rows_per_unit}, drawn anew in each step, "
                "were averaged before the clip."
            )
        if self.microbatch_size > 1:
            words = (
                f" Gradients are averaged over microbatches of {self.microbatch_size} before the "
                "clip, so one record moves the sum by up to twice the clip norm: the noise is "
                f"charged as {noise_multiplier / self.sensitivity:.6g} times the sensitivity."
            )
        return words
