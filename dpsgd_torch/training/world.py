"""World: the processes that train one run together, and all that they say to each other.

Each runs the same program. Rank 0 holds the ledger and the run's folder, draws the noise, and is
the one that speaks.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch

from accountant import PrivacyError
from dpsgd_torch.errors import RunError, told
from dpsgd_torch.training.between_ranks import kind_and_words, known, made
from dpsgd_torch.training.collectives import Collectives
from dpsgd_torch.training.last_words import saying_last_words
from dpsgd_torch.training.process_group import Lines, connected, lines_of

T = TypeVar("T")

_GO_ON = "what was reserved is charged: resume the run, with any number of processes"
TIMEOUT = 1800.0  # seconds; longer than one rank may be at work while others wait


class World(Collectives):
    """Rank and size of a run's processes, and its collectives; one process alone says nothing.

    * Whatever fails on one rank within a run is told to all at their next exchange; what fails
      outside one, in the user's own code, within a second: all end, by a line that names the rank.
    * A rank that is gone, or silent for longer than the timeout, ends all that are left.
    * What is exchanged is JSON, or tensors: nothing is unpickled.

    Args:
        lines: what connects this process with the others; None where there are none.

    >>> World().first(lambda: 5), World().exchange("how many", 3)
    (5, [3])
    """

    def __init__(self, lines: Lines | None = None) -> None:
        self.lines = lines
        self.rank, self.size = (lines.rank, lines.size) if lines else (0, 1)
        self.missing: set[int] = lines.lost if lines else set()
        self.waited = 0.0  # seconds in collectives
        self._stop, self._over = "", cast(Exception | None, None)

    @classmethod
    def of_environment(cls, timeout: float = TIMEOUT) -> World:
        """The processes that torchrun began, or that the caller's process group is made of.

        Args:
            timeout: seconds after which a rank that says nothing is given up.

        Raises:
            RunError: they cannot be connected.

        >>> World.of_environment().size
        1
        """
        if not connected(timeout):
            return cls()
        world = cls(lines_of(timeout))
        saying_last_words(world)
        return world

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    @property
    def speaks(self) -> bool:
        """Whether this rank is the one that says what went wrong: the first that is left."""
        return self.rank == min(set(range(self.size)) - self.missing, default=0)

    def device(self, asked: torch.device) -> torch.device:
        """The device of this rank, where ``asked`` names a kind alone."""
        many = self.lines and asked.type == "cuda" and asked.index is None
        return torch.device("cuda", self.lines.local_rank) if many and self.lines else asked

    def stop(self, why: str) -> None:
        """Fail at the next exchange, as where a signal says so."""
        self._stop = why

    @contextlib.contextmanager
    def stopping_together(self) -> Iterator[None]:
        """Have SIGTERM, which torchrun sends to whom a rank has left, stop all at an exchange."""
        if self.lines is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self.stop("told to stop by SIGTERM"))
        try:
            yield
        except GeneratorExit:
            signal.signal(signal.SIGTERM, before)
            raise
        except BaseException:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ends by itself, with its own status
            raise
        signal.signal(signal.SIGTERM, before)

    def exchange(self, what: str, value: Any = None) -> list[Any]:
        """Every rank's ``value``, JSON, in the order of ranks.

        Raises:
            PrivacyError: what failed on another rank, by its number.
        """
        if self.lines is None:
            return [value]
        if self._stop:
            self._refuse_told()
            raise RunError(self._stop)
        said = self._gather({"at": what, "value": value})
        self._refuse_failed(said)
        others = [r for r, one in enumerate(said) if one["at"] != said[0]["at"]]
        if others:
            raise known(
                RunError(
                    f"rank {others[0]}: is at {said[others[0]]['at']!r}, and rank 0 at "
                    f"{said[0]['at']!r}; let all ranks run one program on the same arguments"
                )
            )
        return [one["value"] for one in said]

    def first(self, make: Callable[[], T], what: str = "word of rank 0") -> T:
        """What rank 0 makes, JSON, for all; what it refuses is refused by all."""
        if self.lines is None:
            return make()
        value: Any = None
        if self.is_first:
            try:
                value = make()
            except PrivacyError as error:
                self._gather({"error": [type(error).__name__, str(error)], "of all": True})
                raise known(error)  # noqa: B904  the same one
        return self.exchange(what, value)[0]

    def first_bytes(self, make: Callable[[], bytes]) -> bytes:
        """Bytes that rank 0 has, for all."""
        if self.lines is None:
            return make()
        held = make() if self.is_first else b""
        length = int(self.exchange("bytes", len(held))[0])
        buffer = torch.zeros(length, dtype=torch.uint8)
        if self.is_first:
            buffer = torch.frombuffer(bytearray(held), dtype=torch.uint8)
        self._heard(lambda: self._lines.broadcast(buffer))
        return buffer.numpy().tobytes()

    def agree(self, what: str, **things: Any) -> None:
        """Refuse to go on where a rank's ``things`` are not rank 0's, by name."""
        all_of_them = self.exchange(what, things)
        for rank, theirs in enumerate(all_of_them):
            for name, value in theirs.items():
                if value != all_of_them[0].get(name):
                    raise known(
                        RunError(
                            f"rank {rank}: its {name.replace('_', ' ')} differs from rank 0's, at "
                            f"{what}; give every rank the same data, model, arguments and versions"
                        )
                    )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around what all ranks do: what fails on one is told to the others."""
        try:
            yield
        except GeneratorExit:  # who goes through a run's steps left, as the others may
            raise
        except BaseException as error:
            if self.lines is None or getattr(error, "known_to_all", False):
                raise
            if not isinstance(error, Exception):
                raise self.give_up(error) from error.__cause__
            raise self._tell(error) from error.__cause__

    @contextlib.contextmanager
    def each_by_itself(self) -> Iterator[None]:
        """Around the user's own code, in which ranks need not meet: they hear of it at once."""
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            if self.lines is None or getattr(error, "known_to_all", False):
                raise
            raise self.give_up(error) from error.__cause__

    def give_up(self, error: BaseException) -> BaseException:
        """Tell the others, wherever they are, that this rank is over; returns what to raise."""
        if self.lines is None or getattr(error, "known_to_all", False):
            return error
        if isinstance(error, KeyboardInterrupt):
            error = RunError(f"interrupted {error}".strip() + f"; {_GO_ON}")
        kind, message = kind_and_words(error)
        self.lines.tell({"rank": self.rank, "error": [kind, message]})
        if isinstance(error, PrivacyError):
            error = made(kind, f"rank {self.rank}: {error}", like=error).with_traceback(
                error.__traceback__
            )
        if isinstance(error, Exception):
            self._over = error
        return known(error)

    def _tell(self, error: Exception) -> Exception:
        """Tell the others, wherever they wait; returns what to raise here."""
        if isinstance(error, OSError | sqlite3.Error):  # a full disk: no fault of the program's
            error = RunError(f"{told(error)}; {_GO_ON}")
        kind, message = kind_and_words(error)
        mine = [kind, message]
        try:
            said = self._gather({"error": mine})
        except PrivacyError as lost:  # they are gone
            return lost if self._stop else known(error)
        alike = all(one.get("error") == mine for one in said)
        if alike or not isinstance(error, PrivacyError):
            return known(error)
        return known(made(kind, f"rank {self.rank}: {error}", like=error))

    def _gather(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        content = json.dumps(message).encode()
        found = self._heard(lambda: self._lines.gather(content))
        return [json.loads(one) for one in found]

    def _refuse_failed(self, said: Sequence[Mapping[str, Any]]) -> None:
        for rank, one in enumerate(said):
            if "error" in one:
                kind, message = one["error"]
                of_all = one.get("of all")
                raise known(made(kind, message if of_all else f"rank {rank}: {message}"))

    def _heard(self, say: Callable[[], T]) -> T:
        """A collective that ends in an error of ours where a rank does not take part."""
        if self._over:
            raise self._over
        if self.missing:
            raise self._lost()
        self._lines.look = self._look
        started = time.perf_counter()
        try:
            return say()
        except RuntimeError as error:
            self._refuse_told()
            self.missing.update(self._lines.missing() or {-1})
            raise self._lost(error) from None
        finally:
            self.waited += time.perf_counter() - started

    def _look(self) -> None:
        """While others are waited for: whether one of them, or this one, is over."""
        if self._over:
            raise self._over
        self._refuse_told()
        if self._stop:
            raise self.give_up(RunError(self._stop))

    def _refuse_told(self) -> None:
        word = self._lines.word()
        if word and word["rank"] != self.rank:
            kind, message = word["error"]
            self._over = known(made(kind, f"rank {word['rank']}: {message}"))
            raise self._over

    def _lost(self, error: Exception | None = None) -> Exception:
        gone = sorted(self.missing - {-1})
        who = f"rank {', '.join(map(str, gone))}" if gone else "a rank"
        why = "" if gone else f" ({told(error)})" if error else ""
        return known(
            RunError(
                f"{who}: is gone, or said nothing for {self._lines.timeout:g} s{why}; {_GO_ON}"
            )
        )


ALONE = World()
