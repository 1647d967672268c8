"""What a loop keeps beside the model: rows never come back in it, weights may."""

import pytest
import torch
from own_loops import looped, losses_of, make_private, trained
from small_problem import small_model, weights
from torch.nn.functional import cross_entropy

from dpsgd_torch import GuaranteeBroken


class WritesAsItIsLoaded:
    """A thing to keep, whose state is nothing and whose loading is not."""

    def __init__(self, model):
        self.model = model

    def state_dict(self):
        return {"steps": 1}

    def load_state_dict(self, state):
        with torch.no_grad():
            next(self.model.parameters()).add_(1.0)


def test_what_is_kept_cannot_write_weights_as_it_is_loaded(tmp_path):
    def kept():
        private = make_private(run_dir=tmp_path / "run", checkpoint_every=1, loss=None)
        private.keep(mine=WritesAsItIsLoaded(private.model))
        return private

    left, seen = kept(), dict[int, torch.Tensor]()

    def noting(model, batch):
        seen[left.done] = weights(model).clone()
        return losses_of(model, batch)

    trained(left, 4, noting).close()
    again = kept().resume()
    assert again.done == 3
    assert torch.equal(weights(again.model), seen[3])


@pytest.mark.parametrize("kept", ["a mean of losses", "a queue of outputs"])
@pytest.mark.parametrize("since", [0, 10])
def test_what_a_body_keeps_of_its_rows_where_no_rehearsal_sees_it_is_noticed(kept, since):
    private, held = make_private(loss=None), []

    def body(batch):
        outputs = private.model(batch.inputs)
        losses = cross_entropy(outputs, batch.targets, reduction="none")
        if held and kept == "a mean of losses":
            losses = losses / held[-1].mean()
        elif held:
            losses = losses + (outputs @ held[-1].T).logsumexp(1)
        private.backward(losses)
        if not batch.rehearsal and batch.step >= since:
            held.append((losses[:, None] if kept == "a mean of losses" else outputs).detach())
        private.step()

    with pytest.raises(GuaranteeBroken, match=rf"step {since}: an example's loss is another after"):
        looped(private, body)
    assert private.done == since
    assert len(private.ledger) == since + 1


def test_a_body_may_keep_what_follows_released_weights_alone():
    private, mean, seen = make_private(loss=None), small_model(), 0

    def body(batch):
        nonlocal seen
        losses = losses_of(private.model, batch) + losses_of(mean, batch).detach()
        seen += 0 if batch.rehearsal else len(batch.indices)
        private.backward(losses)
        if private.step():
            with torch.no_grad():
                for p, q in zip(mean.parameters(), private.model.parameters(), strict=True):
                    p.lerp_(q, 0.1)

    looped(private, body)
    assert private.done == 30
    assert seen > 0
