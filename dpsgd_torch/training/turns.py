"""Two threads that strictly take turns: a story that asks, and a caller that answers.

The story is written as if its questions were function calls, however deep inside; the caller goes
on with its own work between them. Neither ever runs while the other does.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


class Turns:
    """A story in a thread of its own, which runs only while its caller waits in ``resume``.

    >>> def story(turns):
    ...     turns.say(turns.say("name?") + "!")
    >>> turns = Turns(story)
    >>> turns.resume(), turns.resume("Ada"), turns.resume(), turns.ended
    ('name?', 'Ada!', None, True)
    """

    def __init__(self, story: Callable[[Turns], None]) -> None:
        self._said: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing, self.ended = False, False
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run, story), daemon=True, name="dpsgd_torch loop"
        )

    def resume(self, answer: Any = None) -> Any:
        """What the story says next; None at its end, whose error is raised here."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._answers.put(answer)
        going_on, said = self._said.get()
        if going_on:
            return said
        self._thread.join()
        self.ended = True
        if said is not None:
            raise said
        return None

    def say(self, what: Any) -> Any:
        """Of the story alone: hand something over, and wait for the answer."""
        if not self._closing:
            self._said.put((True, what))
            answer = self._answers.get()
        if self._closing:
            raise Abandoned
        return answer

    def close(self) -> None:
        """Have the story end where it stands, and wait until it has."""
        if self._thread.ident is None or self.ended:
            return
        self._closing = True
        self._answers.put(None)
        self._thread.join()
        self.ended = True

    def _run(self, story: Callable[[Turns], None]) -> None:
        error: BaseException | None = None
        try:
            story(self)
        except Abandoned:
            pass
        except BaseException as raised:  # the caller's to see
            error = raised
        self._said.put((False, error))


class Abandoned(GeneratorExit):
    """The caller goes its own way: whatever the story holds is given back."""
