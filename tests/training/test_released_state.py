"""What is released is what noise, or nothing, has changed: compared in every step and at save."""

import pytest
import torch
from safetensors.torch import load_file
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import GuaranteeBroken
from dpsgd_torch.storage.sealed import tensors_from_bytes

LATE = 80  # forward passes, more than any check before the first step makes


class Writes(nn.Module):
    """Passes its input on; from some pass on it also adds to a tensor of its own."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.in_eval, self.passes = kind, False, 0
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("buffer", torch.zeros(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        self.passes += 1
        if self.passes > LATE or (self.in_eval and not self.training):
            self.get_parameter_or_buffer().data[0] += x.detach().mean()
        return self.linear(x)

    def get_parameter_or_buffer(self):
        return self.linear.bias if self.kind == "linear.bias" else getattr(self, self.kind)


def writing_model(kind):
    return nn.Sequential(*small_model(), Writes(kind))


@pytest.mark.parametrize("kind", ["frozen", "buffer", "linear.bias"])
def test_a_forward_pass_that_writes_late_ends_the_run_and_names_the_tensor(kind, tmp_path):
    trainer = make_trainer(model=writing_model(kind), epochs=25, physical_batch_size=3)
    with pytest.raises(GuaranteeBroken, match=rf"5\.{kind}: changed after \d+ steps"):
        trainer.fit()
    assert 0 < trainer.done < 250
    for use in (trainer.fit, trainer.privacy_spent, lambda: trainer.save(tmp_path / "out")):
        with pytest.raises(GuaranteeBroken, match="releases nothing"):
            use()
    assert not (tmp_path / "out").exists()


def test_nothing_of_the_step_that_wrote_is_released():
    trainer, after_each = make_trainer(model=writing_model("frozen"), epochs=25), []

    def fit():
        for _ in trainer.run():
            after_each.append(weights(trainer.model).clone())

    with pytest.raises(GuaranteeBroken):
        fit()
    changed = (weights(trainer.model) != after_each[-1]).nonzero()
    assert len(changed) == 1  # what the forward pass wrote; no noisy step on top


@pytest.mark.parametrize("kind", ["frozen", "buffer"])
def test_an_evaluation_pass_that_writes_ends_the_run_before_its_checkpoint(kind, tmp_path):
    model = writing_model(kind)
    trainer = make_trainer(model=model, test_tensors=small_data(), run_dir=tmp_path / "run")
    model[5].in_eval = True  # what does so from the start is refused before that
    with pytest.raises(GuaranteeBroken, match=f"5.{kind}"):
        trainer.fit()
    saved = sorted((tmp_path / "run" / "private" / "checkpoints").glob("step-*"))
    assert [path.name for path in saved] == ["step-00000000", "step-00000007"]


def test_weights_changed_after_the_last_step_are_not_saved(tmp_path):
    trainer = make_trainer().fit()
    with torch.no_grad():
        trainer.model[0].bias[0] += 1e-3
    with pytest.raises(GuaranteeBroken, match=r"0\.bias: changed after 30 steps"):
        trainer.save(tmp_path / "out")


def test_weights_changed_between_two_steps_are_not_trained_on():
    trainer = make_trainer()

    def fit():
        for at in trainer.run():
            if at.step == 5:
                trainer.model[0].weight.data[0] += 1.0

    with pytest.raises(GuaranteeBroken, match=r"0\.weight: changed after 5 steps"):
        fit()


def tied_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(),
            nn.Linear(36, 36),
            nn.Tanh(),
            nn.Linear(36, 36),
            nn.Tanh(),
            nn.Linear(36, 3),
        )
    model[3].weight = model[1].weight
    return model


def test_tied_weights_are_saved_under_both_names_and_resume(tmp_path):
    whole = make_trainer(model=tied_model()).fit()
    file = whole.save(tmp_path / "out") / "model.safetensors"
    saved = tensors_from_bytes(file.read_bytes(), file)
    assert torch.equal(saved["1.weight"], saved["3.weight"])
    assert torch.equal(saved["1.weight"], whole.model[1].weight)

    first = make_trainer(model=tied_model(), run_dir=tmp_path / "run")
    for at in (progress := first.run()):
        if at.step == 9:
            break
    progress.close()
    first.close()
    resumed = make_trainer(model=tied_model(), run_dir=tmp_path / "run").resume().fit()
    assert resumed.model[3].weight is resumed.model[1].weight
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_a_view_and_its_base_are_saved_too(tmp_path):
    model = small_model()
    model.register_buffer("base", torch.arange(6.0))
    model.register_buffer("view", model.base[2:4])
    saved = load_file(make_trainer(model=model).fit().save(tmp_path / "out") / "model.safetensors")
    assert saved["view"].tolist() == [2.0, 3.0]
