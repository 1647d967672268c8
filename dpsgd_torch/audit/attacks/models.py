"""Dozens of models trained, each asked for its scores: in processes, kept in a folder, resumed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpsgd_torch.audit.attacks.ask import Scores, scores_of
from dpsgd_torch.audit.attacks.canary import Made
from dpsgd_torch.audit.attacks.training import Rows, found, released
from dpsgd_torch.errors import RunError

Tell = Callable[[int, int, float], None]
"""(models done, models in all, seconds left, about)"""

_PROBED = 4  # models, from which one more is trained to see that seeds matter


@dataclass(frozen=True)
class Job:
    """All that a process needs to train any of the models and ask it."""

    train: Any
    """A function, or its name as module:function."""
    score: Any
    """The same, or None."""
    made: Made
    queries: int
    seed: int

    def run(self, coins: np.ndarray, seed: int) -> Scores:
        """Train one model with the canaries whose coin says so, and ask it."""
        train = found(self.train, "command") if isinstance(self.train, str) else self.train
        score = found(self.score, "score") if isinstance(self.score, str) else self.score
        model = released(train, with_canaries(self.made, coins), seed)
        return scores_of(model, self.made, queries=self.queries, seed=self.seed, own=score)


@dataclass(frozen=True)
class Design:
    """What makes kept scores belong to an audit: whatever differs, they are another's."""

    train: str
    code: str
    data: str
    attack: str
    canary: str
    canaries: int
    models: int
    queries: int
    score: str
    seed: int


def with_canaries(made: Made, coins: np.ndarray) -> Rows:
    """The data of one run: what all have, then the canaries that are in."""
    chosen = torch.from_numpy(np.flatnonzero(coins))
    return tuple(
        torch.cat([base, rows[chosen]]) for base, rows in zip(made.base, made.rows, strict=True)
    )  # type: ignore[return-value]


def train_all(
    job: Job,
    coins: np.ndarray,
    seeds: list[int],
    *,
    folder: Path | None = None,
    design: Design | None = None,
    processes: int = 1,
    tell: Tell | None = None,
) -> Scores:
    """Statistic → (models, canaries) scores of all models; those in the folder are not trained.

    Raises:
        RunError: a training fails, gives what is not finite or ignores its seed, a process dies, or
            the folder keeps the scores of another audit.
    """
    if folder is not None and design is not None:
        _claim(folder, design)
    wanted = len(seeds)
    if wanted >= _PROBED and not (coins == coins[0]).all(1)[1:].any():
        coins = np.vstack([coins, coins[:1]])  # the first one's data once more, by another seed
        seeds = [*seeds, seeds[0] + 1]
    kept: dict[int, Scores] = {}
    for number in range(len(seeds)):
        if folder is not None and (folder / _name(number)).is_file():
            kept[number] = _load(folder / _name(number))
    missing = [number for number in range(len(seeds)) if number not in kept]
    missing = [n for n in missing if n >= wanted] + [n for n in missing if n < wanted]
    started, fresh = time.monotonic(), 0
    for number, scores in _trained(job, coins, seeds, missing, processes):
        kept[number], fresh = scores, fresh + 1
        if folder is not None:
            _keep(folder / _name(number), scores)
        _seeds_matter(kept, coins)
        if tell is not None:
            left = (time.monotonic() - started) / fresh * (len(missing) - fresh)
            tell(len(kept), len(seeds), left)
    return {name: np.stack([kept[i][name] for i in range(wanted)]) for name in kept[0]}


def _trained(
    job: Job, coins: np.ndarray, seeds: list[int], missing: list[int], processes: int
) -> Iterator[tuple[int, Scores]]:
    if processes == 1 or len(missing) < 2:
        for number in missing:
            yield number, job.run(coins[number], seeds[number])
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(job, os.getcwd()))
    try:
        running: dict[Future[Scores], int] = {}
        waiting = list(missing)
        while running or waiting:
            while waiting and len(running) < processes:
                number = waiting.pop(0)
                running[pool.submit(_run, coins[number], seeds[number])] = number
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise RunError(
            f"processes = {processes}: one died while it trained (killed, out of memory, or it "
            "could not begin); what is finished is kept in the folder: run again, with fewer"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: Job | None = None


def _begin(job: Job, folder: str) -> None:
    global _job
    os.chdir(folder)
    torch.set_num_threads(1)
    _job = job


def _run(coins: np.ndarray, seed: int) -> Scores:
    assert _job is not None
    return _job.run(coins, seed)


def _seeds_matter(kept: dict[int, Scores], coins: np.ndarray) -> None:
    """Two models of the same data and other seeds differ, or the noise is no noise."""
    first = min(kept)
    for number, scores in kept.items():
        if number == first or not np.array_equal(coins[number], coins[first]):
            continue
        if all(np.array_equal(scores[name], kept[first][name]) for name in scores):
            raise RunError(
                f"train(data, seed): models {first} and {number} are the same though their seeds "
                "differ; draw noise and batches by the seed that is given"
            )
        return


def fingerprint(*tensors: torch.Tensor) -> str:
    """SHA-256 of tensors, with their shapes."""
    made = hashlib.sha256()
    for tensor in tensors:
        made.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        made.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return made.hexdigest()[:16]


def _claim(folder: Path, design: Design) -> None:
    told = asdict(design)
    path = folder / "design.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            known = json.loads(path.read_text())
            if not isinstance(known, dict):
                raise ValueError("design.json is that of no audit")
            other = [name for name in told if known.get(name) != told[name]]
            if other:
                raise RunError(
                    f"folder = {folder}: keeps scores of another audit ({', '.join(other)} "
                    "differ); name another folder, or remove this one"
                )
        path.write_text(json.dumps(told, indent=2) + "\n")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"folder = {folder}: {error}; name another folder") from None


def _name(number: int) -> str:
    return f"model-{number:04d}.npz"


def _keep(path: Path, scores: Scores) -> None:
    partial = path.with_suffix(f".{os.getpid()}.npz")
    arrays: dict[str, Any] = dict(scores)
    np.savez(partial, **arrays)
    os.replace(partial, path)


def _load(path: Path) -> Scores:
    try:
        with np.load(path) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: is damaged ({error}); remove it to train it again") from None
