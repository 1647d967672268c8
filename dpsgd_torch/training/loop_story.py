"""A run told as if it had a loss to call, where each call is a question to a loop.

It is told in a thread of its own: whatever the engine and its rehearsal ask, however deep inside,
the loop answers, and what is rehearsed is the loop's own body.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Tree, length
from dpsgd_torch.errors import GuaranteeBroken, RunError
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.carried import around, carried
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
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
        self._epoch, self._before = 0, cast(torch.Tensor | None, None)

    def __call__(self, turns: Turns) -> None:
        run, self._turns = self._session.state, turns
        try:
            self._tell(run, turns)
        finally:
            self._turns = self._take = self._steps = self._before = None
            self._epoch = 0
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
            while run.done < run.sampling.steps and self._reserved(run, turns, spare):
                with steps.charged():
                    record = take(feed, steps.plan, steps.draw())
                    self._may_step = False
                    steps.took(record)
                steps.settle()
                turns.say(STEPPED)
                steps.keep()  # once the loop's own part of a step, a scheduler's, is done
            steps.stopped()
            steps.end()

    def losses(
        self, inputs: Tree, targets: Tree, *, alone: bool = False, ends: bool = False
    ) -> torch.Tensor:
        """The loop's losses of these rows, one an example.

        Args:
            alone: they are none that were drawn.
            ends: and the noise comes next.

        Raises:
            ModelError: what it gave is not that.
        """
        assert self._turns
        run = self._session.state
        question = Question(self._batch(inputs, targets, alone=alone, ends=ends), around())
        losses, since = self._turns.say(question)
        params = [p for p in run.model.parameters() if p.requires_grad]
        refuse_unfit(losses, length(inputs), since, params)
        half = losses.dtype in (torch.float16, torch.bfloat16)
        return losses.float() if half else losses

    def _before_release(self, run: RunState, turns: Turns, spare: Batch) -> None:
        assert self._take
        if self._take.rows.size:
            self._refuse_carried(spare)
        else:  # nobody was drawn: whoever counts batches still meets one
            turns.say(Question(self._batch(*spare, stands_in=True), ()))
        turns.say(READY)
        run.before_release()
        self._may_step = True

    def _reserved(self, run: RunState, turns: Turns, spare: Batch) -> bool:
        """Charge the next step; of an epoch's or loop's first, ask for an example's loss before.

        Of the next as well, where nobody was drawn for that one.
        """
        assert self._steps
        if self._steps.epoch != self._epoch or self._before is not None:
            self._epoch = self._steps.epoch
            for p in run.model.parameters():
                p.grad = None  # the last release's
            self._before = self._alone(spare, ends=False)
            turns.say(REHEARSED)  # no step may follow: a budget may end here
        return self._steps.reserve()

    def _refuse_carried(self, spare: Batch) -> None:
        """After that step's rows: the weights are as they were, so the loss must be.

        Raises:
            GuaranteeBroken: the loop's body carries rows on to others' losses.
        """
        if self._before is None:
            return
        before, self._before = self._before, None
        now = self._alone(spare, ends=True)
        if not torch.allclose(now, before, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise GuaranteeBroken(
                "an example's loss is another after the step's rows went through the loop than "
                "before, at the same weights: the loop keeps something of them (a mean, a queue, a "
                "network beside the model) that comes back in others' losses, and no clip bounds "
                "it; nothing was released: keep it out of the losses"
            )

    def _alone(self, spare: Batch, *, ends: bool) -> torch.Tensor:
        with same_draws(self._session.state.device), carried(FrozenDraws()):
            return self.losses(*spare, alone=True, ends=ends).detach().double()

    def _batch(
        self,
        inputs: Tree,
        targets: Tree,
        *,
        stands_in: bool = False,
        alone: bool = False,
        ends: bool = False,
    ) -> LoopBatch:
        run, take, steps = self._session.state, self._take, self._steps
        # else the engine looks closer
        first = take is not None and take.rows is not self._rows and not alone
        self._rows = take.rows if take else self._rows
        rows = self._rows if first else np.zeros(0, np.int64)
        return LoopBatch(
            inputs=inputs,
            targets=targets,
            indices=rows,
            step=run.done,
            epoch=steps.epoch if steps else 1,
            is_last=stands_in or ends or (not alone and self._ends(take)),
            rehearsal=not (first or stands_in),
            stands_in=stands_in,
        )

    def _ends(self, take: PrivateStep | None) -> bool:
        """Whether noise comes next: not where the loss of one example is to be asked once more."""
        return bool(take and take.is_last) and self._before is None

    def refuse_bare_step(self, optimizer: object, *arguments: object) -> None:
        """Before each step of the optimizer: one that has no noise is not taken."""
        del optimizer, arguments
        if not self._may_step:
            raise RunError(
                "optimizer.step(): no noise was added to what it would step by; call "
                "private.step() in its place"
            )
