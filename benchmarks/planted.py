"""Which planted privacy bugs are found, and by which check; are honest runs left in peace?

    bugs     each fault of FAULTS, planted into one small run of its own: the table
    clean    so many honest runs of the same problem (--runs), by the same checks: how many are
             accused

The engine's own check of every step's sum and noise is switched off where a fault would meet it
first, so that the table says what an audit finds alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from accountant import PrivacyError
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.audit import Canaries, largest_change, replay
from dpsgd_torch.noise import independent
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.samplers import poisson
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.streams import Streams

ROWS, BATCH = 125, 24  # 125 / 24 is no whole number: 1/len(loader) is no sampling rate
_Patches = list[tuple[Any, str, Any]]


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 5))


@dataclass(frozen=True)
class Fault:
    """A bug: what is replaced, in which model and with which settings."""

    name: str
    patches: Callable[[], _Patches] = list
    model: Callable[[], nn.Module] = linear
    settings: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for where, name, fault in self.patches():
                stack.enter_context(mock.patch.object(where, name, fault))
            yield


@dataclass(frozen=True)
class Found:
    """By whom, and what was said."""

    where: str
    words: str


def found_in(fault: Fault, seed: int = 0) -> list[Found]:
    """Every way in which one run with the fault is found out; empty: it is not."""
    with tempfile.TemporaryDirectory() as folder, fault.planted(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[Found] = []
        trainer = None
        try:
            trainer = trainer_of(fault, Path(folder) / "run", seed)
            canaries = Canaries(100).insert(trainer)
            report = canaries.report(trainer.fit())
            found += [Found("canaries", words) for words in report.faults]
            change = largest_change(trainer, 8)
            if not change.passed:
                found.append(Found("largest_change", str(change)))
        except PrivacyError as error:
            begun = trainer is not None and trainer.state.charges.are_open and trainer.state.done
            found.append(Found("in its step" if begun else "before the first charge", str(error)))
        finally:
            if trainer is not None:
                trainer.close()
        with contextlib.suppress(PrivacyError):
            replayed = replay(RunFolder(Path(folder) / "run"))
            found += [Found("replay", words) for words in replayed.faults]
        return found


def trainer_of(fault: Fault, folder: Path, seed: int) -> Trainer:
    generator = torch.Generator().manual_seed(seed)
    asked: dict[str, Any] = {
        "privacy": Privacy(epsilon=4, delta=1e-3, clip_norm=0.1),
        "batch_size": BATCH,
        "epochs": 6,
        **fault.settings,
    }
    torch.manual_seed(seed)
    return Trainer(
        fault.model(),
        nn.CrossEntropyLoss(),
        (
            torch.rand(ROWS, 30, generator=generator),
            torch.randint(5, (ROWS,), generator=generator),
        ),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2),
        run_dir=folder,
        seed=seed,
        **asked,
    )


_UNCHECKED: tuple[Any, str, Any] = (independent, "refuse_unplanned", lambda *_: None)


def twice_the_clip() -> _Patches:
    begin = PrivateOptimizer.begin

    def doubled(self: PrivateOptimizer, *given: Any) -> None:
        begin(self, *given)
        self.clip_norm *= 2

    return [_UNCHECKED, (PrivateOptimizer, "begin", doubled)]


def two_thirds_of_the_noise() -> _Patches:
    fill = independent.fill_normal

    def less(rng: np.random.Generator, out: np.ndarray) -> None:
        fill(rng, out)
        out *= 2 / 3

    return [_UNCHECKED, (independent, "fill_normal", less)]


def shuffled() -> _Patches:
    order: dict[int, np.ndarray] = {}

    def next_batch(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
        if len(order.setdefault(n, np.zeros(0, np.int64))) < round(n * rate):
            order[n] = rng.permutation(n)
        batch, order[n] = np.split(order[n], [round(n * rate)])
        return np.sort(batch)

    return [(poisson, "poisson_sample", next_batch)]


def one_in_every_batch() -> _Patches:
    sample = poisson.poisson_sample
    return [(poisson, "poisson_sample", lambda *given: np.union1d(sample(*given), [0]))]


def noise_reused() -> _Patches:
    made = Streams.numpy

    def stuck(self: Streams, name: str, *, attempt: int = 0, step: int = 0) -> np.random.Generator:
        return made(self, name, attempt=attempt, step=0 if name == "noise" else step)

    return [(Streams, "numpy", stuck)]


def clip_after_averaging() -> _Patches:
    def averaged(self: PrivateOptimizer, vectors: Any) -> torch.Tensor:
        norms = vectors.norms
        ones = torch.ones(len(norms), dtype=torch.float64)
        whole, _ = vectors.totals(ones, 0.0)
        length = float(torch.sqrt(sum((part.double() ** 2).sum() for part in whole)))
        factor = min(1.0, self.clip_norm / (length / len(norms) + 1e-12)) / len(norms)
        for total, part in zip(self.sums, whole, strict=True):
            total += (factor * part).to(total.dtype)
        self._clipped += len(norms)
        return norms

    return [_UNCHECKED, (PrivateOptimizer, "accumulate", averaged)]


def seed_shared_by_two_ranks() -> _Patches:
    sample = poisson.poisson_sample

    def shares(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
        mine = sample(rng, n // 2, rate)
        return np.sort(np.concatenate([mine, mine + n // 2]))

    return [(poisson, "poisson_sample", shares)]


def noise_seed_shared_by_two_shards() -> _Patches:
    fill = independent.fill_normal

    def twice(rng: np.random.Generator, out: np.ndarray) -> None:
        fill(rng, out)
        half = len(out) // 2
        out[half : 2 * half] = out[:half]

    return [_UNCHECKED, (independent, "fill_normal", twice)]


def no_noise_on_empty_batches() -> _Patches:
    add = IndependentGaussian.add

    def lazy(self: IndependentGaussian, sums: Any, params: Any, release: Any) -> None:
        empty = not any(s.any() for s in sums)
        add(self, sums, params, release)
        for p in params if empty else ():
            p.grad *= 0.01

    return [(IndependentGaussian, "add", lazy)]


def divided_by_the_realised_batch() -> _Patches:
    add = IndependentGaussian.add

    def realised(self: IndependentGaussian, sums: Any, params: Any, release: Any) -> None:
        add(self, sums, params, release)
        for p in params:
            p.grad *= release.divisor / max(1, release.vectors)

    return [(IndependentGaussian, "add", realised)]


def divided_by_n_times_the_loaders_rate() -> _Patches:
    begun = PrivateOptimizer.__init__

    def of_n(self: PrivateOptimizer, *given: Any, **asked: Any) -> None:
        begun(self, *given, **asked)
        self.microbatches = int(ROWS / -(-ROWS // BATCH))

    return [(PrivateOptimizer, "__init__", of_n)]


class BatchRepeated(nn.Module):
    """Each example goes through twice, beside another one's copy."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(30, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        twice = torch.cat([x, x.roll(1, 0)])
        return self.inner(twice).view(2, len(x), -1).mean(0)


class BufferKept(nn.Module):
    """Leaves a mean of the batch in a buffer that is saved with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(30, 5)
        self.register_buffer("mean", torch.zeros(30))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.mean.copy_(x.mean(0))
        return self.inner(x)


class ParameterMoved(nn.Module):
    """Moves a parameter by the batch, past the optimizer and its noise."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(30, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.inner.bias.add_(x.mean())
        return self.inner(x)


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))


_FEW = {
    "batch_size": 1,
    "epochs": 0.5,
    "privacy": Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
}
FAULTS = [
    Fault("sums of sensitivity 2C", twice_the_clip),
    Fault("noise × ⅔", two_thirds_of_the_noise),
    Fault("shuffled, priced as Poisson", shuffled),
    Fault("one record in every batch", one_in_every_batch),
    Fault("noise reused", noise_reused),
    Fault("clip after averaging", clip_after_averaging),
    Fault("a batch repeated in the model", model=BatchRepeated),
    Fault("sampling seed shared by ranks", seed_shared_by_two_ranks),
    Fault("noise seed shared by shards", noise_seed_shared_by_two_shards),
    Fault("no noise on empty batches", no_noise_on_empty_batches, settings=_FEW),
    Fault("batch norm", model=normalized),
    Fault("a buffer without noise", model=BufferKept),
    Fault("a parameter without noise", model=ParameterMoved),
    Fault("divided by the realised batch", divided_by_the_realised_batch),
    Fault("divided by int(n·q)", divided_by_n_times_the_loaders_rate),
]
HONEST = Fault("none")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("bugs", "clean"))
    parser.add_argument("--runs", type=int, default=200, help="honest runs (200)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "clean":
        clean(options.first, options.runs)
        return
    missed = 0
    for fault in FAULTS:
        found = found_in(fault)
        missed += not found
        print(f"{fault.name:32}{'' if found else 'NOT FOUND'}", flush=True)
        for each in found:
            print(f"    {each.where}: {each.words[:150]}", flush=True)
    print(f"{len(FAULTS) - missed} of {len(FAULTS)} were found")


def clean(first: int, runs: int) -> None:
    accused, started = 0, time.process_time()
    for number, seed in enumerate(range(first, first + runs)):
        if number % 20 == 19:
            print(f"after {number} runs {accused} were accused", flush=True)
        found = found_in(HONEST, seed)
        accused += bool(found)
        for each in found:
            print(f"seed {seed}: {each.where}: {each.words}", flush=True)
    seconds = time.process_time() - started
    print(f"{accused} of {runs} honest runs were accused; {seconds / runs:.2f} s each")


if __name__ == "__main__":
    main()
