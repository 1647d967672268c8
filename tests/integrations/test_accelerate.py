"""Accelerate's own Accelerator, with a private loop over what it prepared."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_problem import make_trainer, sgd, small_data, small_model, weights
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch import Privacy, TrainingError
from dpsgd_torch.integrations import private_with

accelerate = pytest.importorskip(
    "accelerate", reason="accelerate is missing: pip install 'dpsgd_torch[integrations]'"
)


@pytest.fixture
def accelerator():
    """A fresh one: what processes and precision there are, it keeps for all of a process."""

    def make(**options):
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
        return accelerate.Accelerator(cpu=True, **options)

    yield make
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def made(accelerator, data=None, **changes):
    model = small_model()
    model, optimizer = accelerator.prepare(model, sgd(model.parameters()))
    settings = {
        "privacy": Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        "batch_size": 12, "epochs": 3, "physical_batch_size": 5, "seed": 11,
        "loss": nn.CrossEntropyLoss(), **changes,
    }  # fmt: skip
    data = small_data() if data is None else data
    return private_with(accelerator, model, optimizer, data, **settings), optimizer


def trained(private, backward=None):
    for batch in private:
        outputs = private.model(batch.inputs)
        losses = cross_entropy(outputs, batch.targets, reduction="none")
        (backward or private.backward)(losses)
        private.step()
    return private


def test_weights_epsilon_and_ledger_are_the_trainers(accelerator):
    private, expected = trained(made(accelerator())[0]), make_trainer().fit()
    assert torch.equal(weights(private.model), weights(expected.model))
    assert private.privacy_spent() == expected.privacy_spent()
    assert private.ledger.events() == expected.ledger.events()


def test_a_loop_over_a_loader_as_it_was_before_prepare_learns_as_the_trainer_does(accelerator):
    with pytest.warns(UserWarning, match="Poisson sampling"):
        private = made(accelerator(), DataLoader(TensorDataset(*small_data()), batch_size=12))[0]
    expected = make_trainer().fit()
    assert trained(private).epsilon() == expected.privacy_spent().epsilon


def test_bfloat16_trains(accelerator):
    private = trained(made(accelerator(mixed_precision="bf16"), loss=None)[0])
    assert private.done == 30
    assert torch.isfinite(weights(private.model)).all()


def test_a_prepared_scheduler_follows_private_steps(accelerator):
    one = accelerator()
    private, optimizer = made(one)
    scheduler = one.prepare(torch.optim.lr_scheduler.ExponentialLR(private.optimizer, 0.9))
    for batch in private:
        outputs = private.model(batch.inputs)
        private.backward(cross_entropy(outputs, batch.targets, reduction="none"))
        if private.step():
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 0.9**30)


def backward(one, private, optimizer, losses):
    one.backward(losses.mean())
    private.backward(losses)


def step(one, private, optimizer, losses):
    private.backward(losses)
    optimizer.step()


@pytest.mark.parametrize(
    ("misuse", "said"), [(backward, "backward"), (step, r"optimizer\.step\(\): no noise")]
)
def test_accelerates_own_backward_and_step_are_refused_before_a_charge(accelerator, misuse, said):
    one = accelerator()
    private, optimizer = made(one)
    with pytest.raises((TrainingError, RuntimeError), match=said):
        trained(private, lambda losses: misuse(one, private, optimizer, losses))
    assert not private.state.charges.has_ledger


def test_gradient_accumulation_is_refused(accelerator):
    with pytest.raises(TrainingError, match="gradient_accumulation_steps = 2: must be 1"):
        made(accelerator(gradient_accumulation_steps=2))


def test_a_scaler_is_refused(accelerator):
    one = accelerator()
    one.scaler = torch.amp.GradScaler("cpu")  # which fp16 makes where there is a GPU
    with pytest.raises(TrainingError, match="mixed_precision = 'fp16'"):
        made(one)


def test_a_prepared_loader_is_refused(accelerator):
    one = accelerator()
    loader = one.prepare(DataLoader(TensorDataset(*small_data()), batch_size=12))
    with pytest.raises(TrainingError, match="data = DataLoaderShard: is a prepared loader"):
        made(one, loader)


def test_two_processes_are_refused(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
from dpsgd_torch import Privacy, TrainingError
from small_problem import sgd, small_data, small_model
from dpsgd_torch.integrations import private_with

def run():
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    model = small_model()
    try:
        private_with(
            accelerator, model, sgd(model.parameters()), small_data(),
            privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
            batch_size=12, epochs=1)
    except TrainingError as error:
        open({str(tmp_path)!r} + f"/{{accelerator.process_index}}", "w").write(str(error))

if __name__ == "__main__":
    from accelerate import debug_launcher
    debug_launcher(run, num_processes=2)
"""
    (tmp_path / "two.py").write_text(code)
    subprocess.run([sys.executable, tmp_path / "two.py"], check=True, capture_output=True)
    assert all("num_processes = 2: must be 1" in (tmp_path / r).read_text() for r in "01")
