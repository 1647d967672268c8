"""What of Lightning is refused by name, before anything is charged."""

import pytest
import torch
from small_problem import sgd, small_data, weights
from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch import RunError, TrainingError

L = pytest.importorskip(
    "lightning.pytorch", reason="lightning is missing: pip install 'dpsgd_torch[integrations]'"
)

from lightning.pytorch.callbacks import GradientAccumulationScheduler  # noqa: E402
from lightning_nets import Net, fitted, rows, strategy  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


def charged_nothing(private):
    return private._run is None or not private.private.state.charges.has_ledger


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"gradient_clip_val": 1.0}, r"gradient_clip_val = 1.0: .*clip_norm"),
        ({"accumulate_grad_batches": 2}, r"accumulate_grad_batches = 2: .*raise batch_size"),
        ({"devices": 2}, r"devices = 2, num_nodes = 1: must be 1"),
        ({"precision": "16-true"}, r"precision = '16-true': must be '32-true' or 'bf16-mixed'"),
        ({"limit_train_batches": 2}, r"limit_train_batches"),
        ({"fast_dev_run": True}, r"fast_dev_run"),
        ({"overfit_batches": 2}, r"overfit_batches"),
        ({"reload_dataloaders_every_n_epochs": 1}, r"reload_dataloaders_every_n_epochs"),
        ({"max_epochs": -1}, r"max_epochs: must be given"),
        ({"callbacks": [GradientAccumulationScheduler({1: 1})]}, r"GradientAccumulationScheduler"),
    ],
)
def test_a_setting_that_no_private_step_can_keep_to_is_refused_by_name(setting, said):
    private = strategy()
    with pytest.raises(RunError, match=said):
        fitted(private=private, **setting)
    assert charged_nothing(private)


def test_scaled_gradients_are_refused():
    from lightning.pytorch.plugins import MixedPrecision

    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(RunError, match=r"precision = '16-mixed': must be"):
        fitted(plugins=[half])


def test_bfloat16_autocast_trains():
    trainer = fitted(precision="bf16-mixed", private=strategy(loss=None))
    assert trainer.strategy.private.done == 30
    assert torch.isfinite(weights(trainer.lightning_module)).all()


class Mean(Net):
    def training_step(self, batch, batch_idx):
        return self.losses(batch).mean()


class Nothing(Net):
    def training_step(self, batch, batch_idx):
        self.losses(batch)


class Mixing(Net):
    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return self.losses((inputs - inputs.mean(0), targets))


class Backward(Net):
    def training_step(self, batch, batch_idx):
        losses = self.losses(batch)
        losses.mean().backward()
        return self.losses(batch)


class Stepping(Net):
    def training_step(self, batch, batch_idx):
        self.optimizers().step()
        return self.losses(batch)


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Clipping(Net):
    def configure_gradient_clipping(self, *arguments, **keywords):
        self.clip_gradients(*arguments, **keywords)


class Plateau(Net):
    def configure_optimizers(self):
        optimizer = sgd(self.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "accuracy"}


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Mean, "return them unreduced"),
        (Nothing, "must be given a tensor"),
        (Mixing, "changes with another example"),
        (Backward, "hold a gradient already"),
        (Stepping, "stepped an optimizer"),
        (Manual, "automatic_optimization = False"),
        (Clipping, "Clipping.configure_gradient_clipping: would not be called"),
        (Plateau, "ReduceLROnPlateau"),
    ],
)
def test_a_module_that_would_break_the_guarantee_is_refused_before_a_charge(net, said):
    private = strategy(loss=None)
    with pytest.raises(TrainingError, match=said):
        fitted(net(), private=private)
    assert charged_nothing(private)


def test_a_checkpoint_of_lightnings_is_no_run_to_go_on_with(tmp_path):
    first = fitted(max_epochs=1)
    first.save_checkpoint(tmp_path / "some.ckpt")
    private = strategy()
    with pytest.raises(RunError, match="holds no ledger"):
        fitted(private=private, fit={"ckpt_path": tmp_path / "some.ckpt"})
    assert charged_nothing(private)


def test_a_second_fit_is_refused_for_its_epsilon_would_be_another():
    trainer = fitted(max_epochs=1)
    with pytest.raises(RunError, match="this strategy has trained"):
        trainer.fit(trainer.lightning_module, rows())


def test_loaders_whose_law_would_be_lost_are_refused():
    odd = DataLoader(TensorDataset(*small_data()), batch_sampler=[[0, 1], [2, 3]])
    with pytest.raises(TrainingError, match="drawn by Poisson sampling"):
        fitted(train=odd)
    with pytest.raises(TrainingError, match="must be one DataLoader"):
        fitted(train=[1, 2, 3])
    with pytest.raises(TrainingError, match="train_dataloaders: several"):
        fitted(train=[rows(), rows()])
