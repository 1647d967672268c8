"""Modules in evaluation mode stay there, and a batch norm that is there is frozen and trains."""

import copy

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from small_problem import make_trainer, small_data, weights
from torch import nn

from dpsgd_torch import ModelError, RunError, Validation
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets


class Flags(nn.Module):
    """Passes its input on and keeps in which mode it was called."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, x):
        if torch.is_grad_enabled():
            self.seen.add(self.training)
        return x


def batch_normed(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), Flags(), nn.Linear(64, 3)
        )
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    return model


def frozen(seed: int = 0) -> nn.Sequential:
    model = batch_normed(seed)
    model[1].eval()
    return model


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize("trained", [True, False])
def test_gradients_through_a_frozen_batch_norm_are_autograds(gradients, trained):
    model = frozen()
    model[1].requires_grad_(trained)
    assert error_of_the_clipped_sum(model, small_data(9), gradients) < 2e-6


def test_a_frozen_batch_norm_stays_frozen_over_evaluation_and_validation():
    model, data = frozen(), small_data(20, seed=5)
    before = {name: b.clone() for name, b in model.named_buffers()}
    held_out = Validation(tensors=data, public=True)
    trainer = make_trainer(model=model, test_tensors=data, validation=held_out).fit()
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert [m.training for m in trainer.model] == [True, False, True, True, True]
    assert model[3].seen == {True}
    assert len(trainer.history.epochs) == 3


def test_modes_changed_between_steps_are_put_back_before_the_next():
    model = frozen()
    trainer = make_trainer(model=model)
    for progress in trainer.run():
        if progress.step == 1:
            model.eval()
        if progress.step == 2:
            model.train()
    assert not model[1].training
    assert int(model[1].num_batches_tracked) == 0
    assert model[3].seen == {True}


def test_a_model_in_evaluation_mode_as_a_whole_is_trained_in_training_mode():
    model = nn.Sequential(nn.Flatten(), Flags(), nn.Dropout(), nn.Linear(36, 3)).eval()
    make_trainer(model=model, epochs=1).fit()
    assert all(module.training for module in model.modules())
    with pytest.raises(ModelError, match=r"layer 1 = BatchNorm2d: .*freeze it by its eval\(\)"):
        make_trainer(model=batch_normed().eval())


def test_without_statistics_of_its_own_a_batch_norm_in_evaluation_mode_mixes_still():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False).eval(), nn.Flatten(),
        nn.Linear(64, 3),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"layer 1 = BatchNorm2d: .*replace_batchnorm"):
        make_trainer(model=model)


def test_a_run_without_privacy_keeps_the_modes_too():
    model = frozen()
    make_trainer(model=model, privacy=None, epochs=1).fit()
    assert int(model[1].num_batches_tracked) == 0


def test_a_run_resumes_with_the_modes_it_began_with_and_with_no_others(tmp_path):
    whole = make_trainer(model=frozen()).fit()
    begun = make_trainer(model=frozen(), run_dir=tmp_path / "run")
    for progress in begun.run():
        if progress.step == 17:
            break
    begun.close()
    other = frozen()
    other[3].eval()
    with pytest.raises(RunError, match=r"its model changed .*in evaluation mode: 1, 3"):
        make_trainer(model=other, run_dir=tmp_path / "run").resume()
    again = make_trainer(model=frozen(), run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))


def test_the_same_seed_gives_other_noise_where_other_layers_are_frozen():
    contexts = []
    for model in (frozen(), frozen()):
        if contexts:
            model[3].eval()
        trainer = make_trainer(model=model)
        trainer.open()
        contexts.append(trainer.streams.context)
    assert contexts[0] != contexts[1]


def test_the_last_layer_of_a_torchvision_resnet18_trains_while_its_batch_norms_are_frozen():
    torchvision_datasets()
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet18(num_classes=3)
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = copy.deepcopy(model.state_dict())
    inputs, targets = small_data(24)
    data = nn.functional.interpolate(inputs, 32).expand(-1, 3, -1, -1).contiguous(), targets
    trainer = make_trainer(model=model, data=data, batch_size=8, epochs=1).fit()
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"fc.weight", "fc.bias"}
