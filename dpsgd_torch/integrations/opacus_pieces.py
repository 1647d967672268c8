"""What a loop written for Opacus handles: loader, criterion and optimizer over one ``Private``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from accountant.errors import check
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.loaders import as_data
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.training.asked import LoopBatch
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.own_loop import Private


class PoissonLoader:
    """One epoch of a run's Poisson batches each time it is iterated, as the loader gave items.

    The first batches are a rehearsal (``loader.batch.rehearsal``), at which nothing is stepped.

    Args:
        items: what the given loader's batches are made of; None where they are pairs of tensors.
    """

    def __init__(self, private: Private, given: DataLoader[Any], items: Any) -> None:
        self.private, self.dataset = private, given.dataset
        self.batch: LoopBatch | None = None
        self.begun = False
        self._items, self._looping = items, False
        self._batches: Iterator[LoopBatch] | None = None  # kept open from epoch to epoch

    def __len__(self) -> int:
        """Steps of one epoch; batches that come in parts, and the rehearsal's, are more."""
        return epoch_ends(self.private.sampling)[0]

    @property
    def batch_size(self) -> int:
        """The expected one, by which sums are divided."""
        return self.private.sampling.batch_size

    @property
    def sample_rate(self) -> float:
        """The declared batch size over the declared n."""
        return self.private.sampling.rate

    def __iter__(self) -> Iterator[Any]:
        private = self.private
        if self._looping:
            raise RunError("loader: another loop over it is open; finish or leave it first")
        if self.begun and private.done >= private.sampling.steps and not private.stopped:
            private.extend(1)
        end = next((e for e in epoch_ends(private.sampling) if e > private.done), private.done)
        self.begun = self._looping = True
        self._batches = batches = self._batches or iter(private)
        paused = False
        try:
            for batch in batches:
                self.batch, rates = batch, self._rates()
                yield self._as_given(batch)
                if batch.rehearsal and self._rates() != rates:
                    raise RunError(
                        "scheduler: a rehearsal batch stepped it, and no step of the optimizer "
                        "goes with that; put it under: if optimizer.stepped:"
                    )
                if end <= private.done < private.sampling.steps:
                    paused = True
                    return
        finally:
            self._looping, self.batch = False, None
            if not paused:
                self._batches = None
                batches.close()  # type: ignore[attr-defined]

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.private.optimizer.param_groups]

    def _as_given(self, batch: LoopBatch) -> Any:
        inputs: Any = batch.inputs
        if isinstance(self._items, Mapping):
            predicted = set(self._items) - set(inputs)
            return {**inputs, **dict.fromkeys(predicted, batch.targets)}
        return (*inputs, batch.targets) if isinstance(inputs, tuple) else (inputs, batch.targets)


class ExampleLosses:
    """Losses of a batch, one an example, with the face of one number: their mean.

    ``item()`` tells what ε does not cover.
    """

    def __init__(self, private: Private, values: torch.Tensor) -> None:
        self._private, self.values = private, values

    def backward(self) -> None:
        """Clip and add up what each example's loss gives."""
        self._private.backward(self.values)

    def detach(self) -> torch.Tensor:
        return self.values.detach().mean()

    def item(self) -> float:
        return float(self.detach())

    __float__ = item

    def __add__(self, other: Any) -> ExampleLosses:
        return self._with(self.values + _values(other))

    def __sub__(self, other: Any) -> ExampleLosses:
        return self._with(self.values - _values(other))

    def __mul__(self, factor: Any) -> ExampleLosses:
        return self._with(self.values * _values(factor))

    def __truediv__(self, divisor: Any) -> ExampleLosses:
        return self._with(self.values / _values(divisor))

    __radd__, __rmul__ = __add__, __mul__

    def _with(self, values: torch.Tensor) -> ExampleLosses:
        return ExampleLosses(self._private, values)


def _values(other: Any) -> Any:
    return other.values if isinstance(other, ExampleLosses) else other


class ExampleCriterion:
    """A criterion that keeps the examples' losses apart until ``backward``."""

    def __init__(self, private: Private, criterion: Any) -> None:
        self._private, self.criterion = private, criterion
        self._losses = per_example(criterion, "criterion")

    def __call__(self, outputs: Any, targets: Any, shape: Any = None) -> ExampleLosses:
        """Losses of a batch.

        Args:
            outputs, targets: as the criterion takes them, a row for each example.
            shape: of logits (n, tokens, vocabulary) before they and the targets were flattened.
        """
        if shape is not None:
            n, tokens = int(shape[0]), int(shape[1])
            outputs = outputs.reshape(n, tokens, -1).transpose(1, 2)
            targets = targets.reshape(n, tokens)
        return ExampleLosses(self._private, self._losses(outputs, targets))


class SteppingOptimizer(torch.optim.Optimizer):
    """The user's optimizer, whose step adds the noise and charges the ledger first.

    ``stepped`` says whether the last call of ``step`` was one: not in the rehearsal, and not before
    a batch's last part.
    """

    def __init__(self, private: Private, original: torch.optim.Optimizer) -> None:
        self.original_optimizer, self._private = original, private
        self.stepped = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.original_optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.original_optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.original_optimizer.defaults

    @property
    def expected_batch_size(self) -> int:
        return self._private.sampling.batch_size

    @property
    def noise_multiplier(self) -> float:
        return self._plan_now()[0]

    @property
    def max_grad_norm(self) -> float:
        return self._plan_now()[1]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """At a batch's end noise, optimizer and ledger."""
        if closure is not None:
            raise RunError("optimizer.step(closure): would take a batch twice; leave it out")
        self.stepped = self._private.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear what a step left; sums of a batch's parts are kept elsewhere."""
        self.original_optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self.original_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.original_optimizer.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"private {self.original_optimizer!r}"

    def _plan_now(self) -> tuple[float, float]:
        private = self._private
        assert private.plan
        step = private.plan.step(min(private.done, private.sampling.steps - 1))
        return step.noise_multiplier, step.clip_norm


class BatchMemoryManager:
    """Cut batches into parts of at most so many examples, as ``opacus.utils`` has it.

    >>> # with BatchMemoryManager(data_loader=loader, max_physical_batch_size=64,
    >>> #                         optimizer=optimizer) as loader: …
    """

    def __init__(
        self,
        *,
        data_loader: PoissonLoader,
        max_physical_batch_size: int,
        optimizer: SteppingOptimizer,
    ) -> None:
        check(
            max_physical_batch_size >= 1,
            "max_physical_batch_size",
            max_physical_batch_size,
            "must be ≥ 1",
        )
        del optimizer  # whose step knows its batch's end
        self._loader, self._size = data_loader, max_physical_batch_size

    def __enter__(self) -> PoissonLoader:
        run = self._loader.private.state
        if self._loader.begun and run.physical_batch_size != self._size:
            raise RunError(
                f"max_physical_batch_size = {self._size}: the run was begun with "
                f"{run.physical_batch_size}, in which its sums are rounded; keep to one"
            )
        run.physical_batch_size = self._size
        return self._loader

    def __exit__(self, *error: object) -> None:
        pass


def data_of(loader: DataLoader[Any]) -> tuple[Any, Any]:
    """(data as ``Private`` takes them, what an item is) of a loader.

    Raises:
        DataError: it streams, samples by its own law, or holds what cannot be read.
    """
    dataset: Any = loader.dataset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Poisson sampling is what was asked for
        data = as_data(loader, "cpu", "data_loader")
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors if loader.collate_fn is default_collate else data, None
    if data is None or not isinstance(data, Data):
        return dataset, None
    collate: Any = loader.collate_fn
    return data, collate([dataset[0]])
