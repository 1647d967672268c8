"""What in a loop would break ε is caught: planted one by one."""

import gc

import pytest
import torch
from own_loops import looped, losses_of, make_private, trained
from small_problem import make_trainer, small_data, small_model, weights
from torch.nn.functional import cross_entropy

from dpsgd_torch import DataError, GuaranteeBroken, ModelError, Privacy, Private, RunError


def nothing_was_charged(private):
    return not private.state.charges.are_open and private.done == 0


def charged(private, count=3):
    """The loop's first charged batches, each used as it should be until then."""
    for batch in private:
        if not batch.rehearsal and (count := count - 1) == 0:
            yield batch
        private.backward(losses_of(private.model, batch))
        private.step()


def test_losses_of_the_batch_before_are_refused():
    private, kept = make_private(), []

    def body(batch):
        losses = losses_of(private.model, batch)
        stale = not batch.rehearsal and kept and len(kept[-1]) == len(losses)
        kept.append(losses)
        private.backward(kept[-2] if stale else losses)
        private.step()

    with pytest.raises(ModelError, match=r"before this batch was handed over.*charge stands"):
        looped(private, body)
    assert private.state.torn


def test_losses_with_a_part_from_before_are_refused():
    private = make_private()
    next(charged(private))
    scale = next(private.model.parameters()).sum()
    with pytest.raises(ModelError, match="before this batch was handed over"):
        trained(private, losses=lambda model, batch: losses_of(model, batch) * scale)


def test_a_batch_that_is_skipped_ends_the_loop_and_was_paid():
    private = make_private()

    def body(batch):
        if not batch.rehearsal and batch.step == 2:
            return
        private.backward(losses_of(private.model, batch))
        private.step()

    with pytest.raises(RunError, match="this batch was skipped; call backward on each; the step's"):
        looped(private, body)
    assert len(private.ledger) == 3
    trained(private)
    assert len(private.ledger) == 31
    assert private.privacy_spent().steps_charged_again == 1


def test_a_batch_that_is_skipped_in_rehearsal_costs_nothing():
    private = make_private()

    def body(batch):
        if batch.rehearsal:
            return
        private.backward(losses_of(private.model, batch))

    with pytest.raises(RunError, match="skipped; call backward on each; nothing was charged"):
        looped(private, body)
    assert nothing_was_charged(private)


def test_a_batch_that_is_used_twice_is_refused():
    private = make_private()
    for batch in private:
        private.backward(losses_of(private.model, batch))
        with pytest.raises(RunError, match="no batch waits for it"):
            private.backward(losses_of(private.model, batch))
        break
    assert nothing_was_charged(private)


def test_a_step_before_its_backward_is_refused():
    private = make_private()
    for _ in private:
        with pytest.raises(RunError, match="step: comes after backward"):
            private.step()
        break
    with pytest.raises(RunError, match="step: comes after backward"):
        private.step()
    with pytest.raises(RunError, match="no batch waits"):
        private.backward(torch.ones(1))


def test_a_last_part_without_its_step_is_refused():
    private = make_private()

    def body(batch):
        private.backward(losses_of(private.model, batch))

    with pytest.raises(RunError, match=r"the last of its step; call step\(\)"):
        looped(private, body)
    assert private.done == 0


def test_gradients_without_noise_are_never_stepped_by():
    private = make_private()
    for _ in charged(private):
        before = weights(private.model).clone()
        for p in private.model.parameters():
            p.grad = torch.ones_like(p)
        with pytest.raises(RunError, match=r"optimizer.step\(\): no noise was added"):
            private.optimizer.step()
        assert torch.equal(weights(private.model), before)
        break
    for batch in private:
        private.backward(losses_of(private.model, batch))
        if private.step():
            with pytest.raises(RunError, match=r"call private.step\(\) in its place"):
                private.optimizer.step()
            break


def test_another_optimizers_step_is_noticed():
    private = make_private()
    other = torch.optim.SGD(private.model.parameters(), lr=0.1)

    def body(batch):
        private.backward(losses_of(private.model, batch))
        if private.step() and batch.step == 1:
            other.step()

    with pytest.raises(GuaranteeBroken, match="changed after 2 steps"):
        looped(private, body)
    with pytest.raises(GuaranteeBroken, match="releases nothing"):
        private.epsilon()


def test_gradients_left_by_hand_are_refused():
    private = make_private()

    def body(batch):
        losses = losses_of(private.model, batch)
        losses.mean().backward(retain_graph=True)
        private.backward(losses)

    with pytest.raises(ModelError, match=r"hold a gradient already.*leave loss.backward\(\) out"):
        looped(private, body)
    assert nothing_was_charged(private)


def test_backward_in_place_of_ours_is_a_batch_skipped():
    private = make_private()

    def body(batch):
        losses_of(private.model, batch).mean().backward()
        private.step()

    with pytest.raises(RunError, match="step: comes after backward"):
        looped(private, body)


def test_weights_that_change_inside_a_batch_stop_the_run_for_good():
    private = make_private()

    def body(batch):
        private.backward(losses_of(private.model, batch))
        if batch.step == 2:
            with torch.no_grad():
                private.model[4].bias.add_(0.1)
        private.step()

    with pytest.raises(GuaranteeBroken, match=r"4\.bias: changed after 2 steps"):
        looped(private, body)
    with pytest.raises(GuaranteeBroken, match="releases nothing"):
        trained(private)


def test_an_optimizer_over_other_parameters_is_refused():
    other = small_model(seed=2)
    with pytest.raises(ModelError, match="trainable but not in the optimizer"):
        make_private(optimizer=torch.optim.SGD(other.parameters(), lr=0.1))
    model = small_model()
    part = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(ModelError, match=r"4\.weight, 4\.bias: trainable but not"):
        make_private(model=model, optimizer=part)


def test_a_loop_left_inside_a_batch_goes_on_with_another_and_pays_for_both():
    private = make_private()
    left = next(charged(private, 9)).step
    gc.collect()
    assert private.state.torn
    assert private.done == left
    trained(private)
    assert private.done == 30
    assert len(private.ledger) == 31
    assert private.privacy_spent().epsilon > trained(make_private()).privacy_spent().epsilon


def test_two_loops_at_once_are_refused():
    private = make_private()
    first = iter(private)
    batch = next(first)
    with pytest.raises(RunError, match="another loop over this run is open"):
        next(iter(private))
    private.backward(losses_of(private.model, batch))
    first.close()
    trained(private)
    assert private.done == 30


def test_what_the_loops_body_raises_comes_as_it_is_and_frees_the_run():
    private = make_private()

    def body(_):
        1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        looped(private, body)
    assert nothing_was_charged(private)
    assert torch.equal(weights(trained(private).model), weights(make_trainer().fit().model))


def test_a_loop_that_goes_on_after_an_error_is_stopped():
    private = make_private(loss=None)

    def body(batch):
        with pytest.raises(ModelError, match="shape"):
            private.backward(losses_of(private.model, batch).mean())

    with pytest.raises(RunError, match="went on after an error"):
        looped(private, body)


def test_a_loop_without_privacy_is_not_one_of_ours():
    with pytest.raises(ValueError, match="must be a Privacy"):
        make_private(privacy=None)


def test_data_that_changes_between_takes_is_told_as_such():
    with pytest.raises(DataError, match="must be a pair of tensors"):
        Private(
            small_model(),
            lambda p: torch.optim.SGD(p, lr=0.1),
            small_data()[0],
            privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
            batch_size=12,
            epochs=1,
        )


@pytest.mark.parametrize("kind", ["a parameter", "a tensor"])
def test_losses_that_hang_on_what_others_train_are_refused(kind):
    scale = torch.ones(2, requires_grad=True)
    head = torch.nn.Parameter(scale.detach()) if kind == "a parameter" else scale
    private = make_private(loss=None)
    with pytest.raises(ModelError, match=rf"hang on {kind} of shape \(2,\) that is not the model"):
        trained(private, losses=lambda model, batch: losses_of(model, batch) * head.sum())
    assert nothing_was_charged(private)


def test_losses_may_hang_on_examples_that_need_a_gradient():
    def body(model, batch):
        moved = (batch.inputs + 0.1).requires_grad_()
        return cross_entropy(model(moved), batch.targets, reduction="none")

    assert trained(make_private(loss=None), losses=body).done == 30


def test_an_optimizer_that_grows_is_never_stepped():
    model = small_model()
    frozen = next(model.parameters()).requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    private, was = make_private(model=model, optimizer=optimizer, loss=None), frozen.clone()
    for batch in private:
        if private.done == 1 and len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": [frozen]})
            frozen.grad = torch.ones_like(frozen)
        private.backward(losses_of(model, batch))
        if private.done < 1 or not batch.is_last:
            private.step()
            continue
        with pytest.raises(GuaranteeBroken, match=r"optimizer: its parameters changed.*no noise"):
            private.step()
        break
    assert torch.equal(frozen, was)


def test_loops_of_one_seed_that_differ_in_later_steps_alone_share_no_noise():
    def body(factor):
        return lambda model, batch: losses_of(model, batch) * (factor if batch.step == 4 else 1)

    first, other = (trained(make_private(loss=None), 4, body(factor)) for factor in (0.0, 1e-9))
    assert torch.equal(weights(first.model), weights(other.model))
    first, other = (trained(make_private(loss=None), 5, body(factor)) for factor in (0.0, 1e-9))
    assert (weights(first.model) - weights(other.model)).abs().max() > 1e-3
