"""A run told as if it had a loss to call, where each call is a question to a loop.

It is told in a thread of its own: whatever the engine and its rehearsal ask, however deep inside,
the loop answers, and what is rehearsed is the loop's own body.
"""

from __future__ import annotations

import numpy as np
import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Tree, length
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.carried import around
from dpsgd_torch.training.asked import LoopBatch, Question, refuse_unfit
from dpsgd_torch.training.feed import feeding
from dpsgd_torch.training.loop import Steps
from dpsgd_torch.training.rehearse_loop import rehearse_loop
from dpsgd_torch.training.session import Session
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.steps import PrivateStep
from dpsgd_torch.training.turns import Turns

READY, STEPPED, REHEARSED = "ready", "stepped", "rehearsed"  # what is said besides questions


class LoopStory:
    """Rehearsal, then the steps that are left: asks for losses, and says what was reached.

    Args:
        named: the loss that the loop says it takes, one value an example; None where it does not.
    """

    def __init__(self, session: Session, named: Loss | None) -> None:
        self._session, self._named = session, named
        self._turns: Turns | None = None
        self._take: PrivateStep | None = None
        self._steps: Steps | None = None
        self._rows = np.zeros(0, np.int64)  # of the part that was asked for last
        self._may_step = False

    def __call__(self, turns: Turns) -> None:
        run, self._turns = self._session.state, turns
        try:
            self._tell(run, turns)
        finally:
            self._turns = self._take = self._steps = None
            self._may_step = False

    def _tell(self, run: RunState, turns: Turns) -> None:
        if run.device.type == "cuda":
            torch.cuda.set_device(run.device)
        if run.done < run.sampling.steps:
            with run.world.together():
                spare = rehearse_loop(run, self._named)
            run.picks_size = False  # the same for all of a run
            turns.say(REHEARSED)
        with self._session.stepping() as take, feeding(run) as feed:
            assert isinstance(take, PrivateStep)
            self._take, self._steps = take, (steps := Steps(run, feed))
            take.before_release = lambda: self._before_release(run, turns, spare)
            while steps.reserve():
                with steps.charged():
                    record = take(feed, steps.plan, steps.draw())
                    self._may_step = False
                    steps.took(record)
                steps.settle()
                turns.say(STEPPED)
                steps.keep()  # once the loop's own part of a step, a scheduler's, is done
            steps.stopped()
            steps.end()

    def losses(self, inputs: Tree, targets: Tree) -> torch.Tensor:
        """The loop's losses of these rows, one an example.

        Raises:
            ModelError: what it gave is not that.
        """
        assert self._turns
        run = self._session.state
        question = Question(self._batch(inputs, targets), around())
        losses, since = self._turns.say(question)
        params = [p for p in run.model.parameters() if p.requires_grad]
        refuse_unfit(losses, length(inputs), since, params)
        half = losses.dtype in (torch.float16, torch.bfloat16)
        return losses.float() if half else losses

    def _before_release(self, run: RunState, turns: Turns, spare: Batch) -> None:
        assert self._take
        if not self._take.rows.size:  # nobody was drawn: whoever counts batches still meets one
            turns.say(Question(self._batch(*spare, stands_in=True), ()))
        turns.say(READY)
        run.before_release()
        self._may_step = True

    def _batch(self, inputs: Tree, targets: Tree, *, stands_in: bool = False) -> LoopBatch:
        run, take, steps = self._session.state, self._take, self._steps
        first = take is not None and take.rows is not self._rows  # else the engine looks closer
        self._rows = take.rows if take else self._rows
        rows = self._rows if first else np.zeros(0, np.int64)
        return LoopBatch(
            inputs=inputs,
            targets=targets,
            indices=rows,
            step=run.done,
            epoch=steps.epoch if steps else 1,
            is_last=stands_in or bool(take and take.is_last),
            rehearsal=not (first or stands_in),
            stands_in=stands_in,
        )

    def refuse_bare_step(self, optimizer: object, *arguments: object) -> None:
        """Before each step of the optimizer: one that has no noise is not taken."""
        del optimizer, arguments
        if not self._may_step:
            raise RunError(
                "optimizer.step(): no noise was added to what it would step by; call "
                "private.step() in its place"
            )
