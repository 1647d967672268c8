"""State of a run: what it was given, and how far it got."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast, overload

import torch
from torch import nn

from accountant import PrivacyError
from dpsgd_torch.clipping.base import Group
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import Forward, call
from dpsgd_torch.data.units import UnitRows
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.methods import Method
from dpsgd_torch.noise.base import State, StepPlan
from dpsgd_torch.optim.base import Average, Filter
from dpsgd_torch.precision import FLOAT32, Precision
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.charges import Charges
from dpsgd_torch.training.filled import rows_of_pass
from dpsgd_torch.training.followed import FollowedClipNorm
from dpsgd_torch.training.history import History
from dpsgd_torch.training.kept import Kept
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.modes import TrainingModes
from dpsgd_torch.training.private_optimizer import Inserted, trained_by
from dpsgd_torch.training.released_state import ReleaseGuard, Watched
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.speed import Speed
from dpsgd_torch.training.steering import Steering
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.views import ONE_VIEW, Views
from dpsgd_torch.training.world import ALONE, World

T = TypeVar("T")


@dataclass(kw_only=True)
class RunState:
    """What loop, contract and resumption read and write of a run; a trainer is its face."""

    model: nn.Module
    modes: TrainingModes
    given_loss: Loss | str  # by name, where a loop of the user's own takes it
    loss: Loss
    scores: Metrics
    data: Data
    test: Data | None
    units: UnitRows | None
    unit_digest: str
    sampling: Sampler
    epochs: float
    privacy: Privacy | None
    plan: PrivacyPlan | None
    optimizer: torch.optim.Optimizer
    steering: Steering
    guard: ReleaseGuard
    streams: Streams
    folder: RunFolder | None
    device: torch.device
    physical_batch_size: int
    checkpoint_every: int
    picks_size: bool = False  # "auto": the physical batch size is what fits
    method: Method = field(default_factory=lambda: Method("none"))
    forward: Forward = call
    precision: Precision = FLOAT32
    compiles: bool = False  # where it can
    kept: Kept = field(default_factory=Kept)
    world: World = ALONE  # whoever trains with it; all but rank 0 have no folder
    shards: Shards | None = None  # the parts that this rank holds, where each holds some
    keeps: bool = False  # whether rank 0 has a folder
    inserted: Inserted | None = None
    average: Average | None = None  # of the weights, which stands in for the last ones
    filter: Filter | None = None  # of the noisy gradient
    views: Views = ONE_VIEW
    keyed: bool = False  # whether noise hangs on the sums: no digest covers all of the data
    data_digest: str = ""  # as all ranks agreed on it
    speed: Speed | None = None  # of the steps that this process takes
    groups: tuple[Group, ...] = ()  # of parameters that are clipped apart
    followed: FollowedClipNorm | None = None
    heard: str = ""  # a digest of losses, where nothing else tells them from another loop's

    # what changes with the steps
    charges: Charges = field(default_factory=Charges)
    noise_state: State = field(default_factory=dict)
    history: History = field(default_factory=History)
    done: int = 0
    resumed: bool = False
    kept_in: int | None = None  # the attempt that the checkpoint was written in, where it says so
    extended: bool = False  # how long to train was decided once more, after results were seen
    torn: bool = False
    stopped: str = ""
    ended: str = ""

    def step_plan(self, step: int) -> StepPlan:
        """What a private step does, at the clip norm that the run has now."""
        assert self.plan
        plan = self.plan.step(step)
        return self.followed.now(plan) if self.followed else plan

    @property
    def attempt(self) -> int:
        return self.charges.attempt

    @property
    def at_once(self) -> int:
        """So many rows at most a pass has; in secure mode, each of them."""
        if self.plan and self.plan.noise.secure:
            likely = self.sampling.batch_size * (self.sampling.rows_per_unit or 1)
            return rows_of_pass(likely, self.physical_batch_size, self.world.size)
        program = self.method.program
        return min(self.physical_batch_size, program.rows if program else self.physical_batch_size)

    @property
    def each_alone(self) -> bool:
        """Whether no pass has more than one row, whoever is drawn."""
        sampling = self.sampling
        if self.views.count > 1:
            return False
        return self.at_once == 1 and not sampling.rows_per_unit and sampling.microbatch_size == 1

    @property
    def is_apart(self) -> bool:
        """Whether this rank holds a part of the model alone."""
        return self.shards is not None and self.shards.are_apart

    @property
    def watched(self) -> Watched:
        """What a step moves: the model, or the parts of it that this rank holds."""
        return self.shards if self.shards and self.shards.are_apart else self.model

    def accept(self) -> int:
        """Take what all ranks hold as released; returns one checksum, for the ledger."""
        own = self.guard.accept()
        if not self.is_apart:
            return own
        return zlib.crc32(json.dumps(self.world.exchange("what is released", own)).encode())

    @contextlib.contextmanager
    def phase(self) -> Iterator[None]:
        """Around what runs the model, on all ranks, also those that do not run it."""
        with self.shards.phase() if self.shards else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def around_passes(self) -> Iterator[None]:
        """Around a private step's passes: the model where its gradients are to be taken."""
        with self.filter.looking_ahead() if self.filter else contextlib.nullcontext(), self.phase():
            yield

    def first_with_model(self, make: Callable[[], T], what: str) -> T:
        """What rank 0 makes of the model, JSON, for all; what it refuses is refused by all."""
        made = self.of_whole_model(make, what)
        return self.world.first(lambda: cast(T, made), what)

    def of_whole_model(self, make: Callable[[], T], what: str) -> T | None:
        """What rank 0 makes of the model, on rank 0; what it refuses is refused by all."""
        made: list[T] = []
        refused: list[PrivacyError] = []
        with self.phase():
            if self.world.is_first:
                try:
                    made.append(make())
                except PrivacyError as error:
                    refused.append(error)

        def told() -> None:
            if refused:
                raise refused[0]

        self.world.first(told, what)
        return made[0] if made else None

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Around steps: ranks hold parts where they were asked to, and all of it afterwards.

        After an error they stay apart: others may be gone.
        """
        if self.shards is None:
            yield
            return
        self.shards.take_apart()
        self.guard.watch(self.shards)
        yield
        self.guard.check(self.done)
        self.shards.put_together()
        self.guard.watch(self.model)

    def begin_attempt(self, *, environment: str, repeatable: bool) -> None:
        """Go on with the last attempt or begin another, and with it what the noise carries."""
        self.charges.begin(
            first_step=self.done,
            environment=environment,
            repeatable=repeatable,
            kept_in=self.kept_in,
        )
        if self.plan and self.charges.ledger.first_step == self.done:
            self.noise_state = self.plan.noise.state(trained_by(self.optimizer))
        self.torn = False

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Around what looks at the weights that are handed on; the last ones come back."""
        with self.average.in_place(self.model) if self.average else contextlib.nullcontext():
            yield

    def refuse_changed_state(self) -> None:
        """Stop for good where the model holds what the last step did not leave."""
        try:
            self.guard.check(self.done)
        except GuaranteeBroken as error:
            self.charges.broken = str(error)
            raise

    def before_release(self) -> None:
        """Between the clipped sum and its noise: the model is as it was, and may change now."""
        self.refuse_changed_state()
        self.guard.expect_step()

    def write_metrics(self, folder: RunFolder) -> None:
        """The epochs so far, public and private parts apart."""
        folder.write_lines("metrics.jsonl", (r.to_json() for r in self.history.epochs))
        folder.write_lines("private/metrics.jsonl", self.history.private)


class HasState(Protocol):
    state: RunState


class Shown(Generic[T]):
    """A read-only attribute of a trainer, taken from its state."""

    def __init__(self, read: Callable[[RunState], T]) -> None:
        self.read = read

    @overload
    def __get__(self, trainer: None, owner: type) -> Shown[T]: ...
    @overload
    def __get__(self, trainer: HasState, owner: type) -> T: ...
    def __get__(self, trainer: HasState | None, owner: type) -> T | Shown[T]:
        return self if trainer is None else self.read(trainer.state)

    def __set__(self, trainer: HasState, value: object) -> None:
        raise AttributeError("a trainer's state is read here and changed by its methods alone")
