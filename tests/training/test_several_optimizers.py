"""Several optimizers over disjoint parameters; hooks; averages of released weights."""

import pytest
import torch
from own_loops import losses_of, make_private, trained
from small_problem import make_trainer, sgd, small_model, weights
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dpsgd_torch import ModelError, RunError


def shared_out(model):
    """Muon for matrices, AdamW for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.01)]


def test_two_optimizers_move_what_each_holds_as_each_would_alone():
    one, two = small_model(), small_model()
    half = lambda model: [  # noqa: E731
        torch.optim.SGD(model[0].parameters(), lr=0.2, momentum=0.5),
        torch.optim.SGD(model[4].parameters(), lr=0.2, momentum=0.5),
    ]
    # the noise is another's, as the contract is; that of the sum is the same law
    trainer = make_trainer(model=one, optimizer=half(one)).fit()
    assert trainer.privacy_spent() == make_trainer(model=two).fit().privacy_spent()
    fresh = weights(small_model())
    assert not (weights(trainer.model) == fresh).any()


def test_muon_for_matrices_and_adamw_for_the_rest_train_and_go_on_in_place(tmp_path):
    def made(**changes):
        model = small_model()
        return make_trainer(model=model, optimizer=shared_out(model), **changes)

    whole, part = made().fit(), made(run_dir=tmp_path / "run")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = made(run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.optimizer.state_dict()["state"].keys() == {0, 1, 2, 3}
    model = small_model()
    private = trained(make_private(model=model, optimizer=shared_out(model)))
    assert torch.equal(weights(private.model), weights(whole.model))
    left = make_private(model=model, optimizer=shared_out(model))
    loop = iter(left)
    next(loop)
    for optimizer in left.optimizer.parts:
        with pytest.raises(RunError, match="no noise was added"):
            optimizer.step()
    loop.close()


def test_overlapping_missing_and_foreign_parameters_are_refused_by_name():
    model = small_model()
    both = [sgd(model.parameters()), sgd(model[0].parameters())]
    with pytest.raises(ModelError, match=r"parameter 0\.bias: is in two optimizers"):
        make_trainer(model=model, optimizer=both)
    with pytest.raises(ModelError, match=r"4\.weight, 4\.bias: trainable but not in the optimizer"):
        make_trainer(model=model, optimizer=[sgd(model[0].parameters())])
    foreign = [sgd(model.parameters()), sgd(small_model().parameters())]
    with pytest.raises(ModelError, match="holds 4 parameter"):
        make_private(model=model, optimizer=foreign)
    with pytest.raises(ModelError, match="optimizer = Linear: must be"):
        make_trainer(model=model, optimizer=lambda p: [model[4]])
    closures = [sgd(model[0].parameters()), torch.optim.LBFGS(model[4].parameters())]
    with pytest.raises(ModelError, match="optimizer LBFGS: evaluates the loss more than once"):
        make_trainer(model=model, optimizer=closures)


def test_a_part_that_does_not_move_its_parameters_is_refused_before_a_charge():
    model = small_model()
    still = [sgd(model[0].parameters()), torch.optim.SGD(model[4].parameters(), lr=0.0)]
    with pytest.raises(ModelError, match=r"4\.weight.*a step of the optimizer does not move it"):
        make_trainer(model=model, optimizer=still)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_parameters_gradient_is_refused_where_it_would_never_be_called(register):
    model = small_model()
    handle = getattr(model[4].weight, register)(lambda gradient: None)
    for make in (make_trainer, make_private):
        with pytest.raises(ModelError, match=r"4 = Linear: weight has a hook on its gradient"):
            make(model=model)
    handle.remove()
    make_trainer(model=model)


def test_a_hook_before_the_optimizers_step_sees_the_noisy_gradient():
    private, seen = make_private(), []

    def hook(optimizer, *arguments):
        seen.append([p.grad.clone() for p in private.model.parameters()])

    private.optimizer.register_step_pre_hook(hook)
    trained(private)
    assert len(seen) == 30
    assert torch.equal(weights(private.model), weights(make_trainer().fit().model))


def test_an_average_of_released_weights_is_free_and_goes_on_in_place(tmp_path):
    def averaged(private, steps=None):
        average = AveragedModel(private.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        private.keep(average=average)
        if steps is None and private.state.folder:
            private.resume()
        for batch in private:
            private.backward(losses_of(private.model, batch))
            if private.step():
                average.update_parameters(private.model)
                if private.done == steps:
                    break
        private.close()
        return average

    whole = averaged(make_private(loss=None))
    averaged(make_private(loss=None, run_dir=tmp_path / "run"), steps=17)
    again = averaged(make_private(loss=None, run_dir=tmp_path / "run"))
    assert torch.equal(weights(again.module), weights(whole.module))
    assert not torch.equal(weights(whole.module), weights(small_model()))
