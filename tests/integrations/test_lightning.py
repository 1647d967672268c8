"""Lightning's own Trainer, fitting privately: what it gives, and what of it is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_problem import make_trainer, sgd, small_data, weights
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from dpsgd_torch import Privacy, Validation

L = pytest.importorskip(
    "lightning.pytorch", reason="lightning is missing: pip install 'dpsgd_torch[integrations]'"
)

from lightning.pytorch.callbacks import (  # noqa: E402
    EarlyStopping,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning_nets import Net, fitted, rows, strategy  # noqa: E402
from torchmetrics.classification import MulticlassAccuracy  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


def reference(**changes):
    """Our own Trainer over the same module; noise is keyed by all that a model holds."""
    net = Net()
    del net.__dict__["_trainer"]  # which Lightning sets
    return make_trainer(model=net, **changes).fit()


def test_weights_epsilon_and_ledger_are_the_trainers(capsys):
    trainer, expected = fitted(), reference()
    private = trainer.strategy.private
    assert torch.equal(weights(trainer.lightning_module), weights(expected.model))
    assert private.privacy_spent() == expected.privacy_spent()
    assert private.ledger.events() == expected.ledger.events()
    assert trainer.global_step == 30
    assert trainer.current_epoch == 3
    assert "privacy spent: ε = 2.573 at δ = 0.001" in capsys.readouterr().out


def test_epsilon_and_accuracy_after_each_epoch_are_the_trainers():
    told = []

    class Told(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            told.append(trainer.callback_metrics["accuracy"].item())

    trainer = fitted(validation=rows(20, 3, 20), callbacks=[Told()])
    public = Validation(
        tensors=small_data(20, 3), public=True, score=lambda out, y: (out.argmax(1) == y).float()
    )
    expected = reference(test_tensors=small_data(20, 3), metrics={"accuracy": public.score})
    assert told == pytest.approx([each.test["accuracy"] for each in expected.history.epochs])
    epsilon = trainer.logged_metrics["epsilon"].item()
    assert epsilon == pytest.approx(expected.history.epochs[-1].epsilon)
    assert torch.equal(weights(trainer.lightning_module), weights(expected.model))


def test_epochs_that_are_no_whole_number_of_steps_end_where_the_plans_do():
    ends = []

    class Ends(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            ends.append(trainer.global_step)

        def on_validation_epoch_end(self, trainer, module):
            if not trainer.sanity_checking:
                ends.append(f"validated at {trainer.global_step}")

    train = rows(100)  # 8⅓ steps
    trainer = fitted(train=train, validation=rows(20), callbacks=[Ends()])
    expected = ["validated at 9", 9, "validated at 17", 17, "validated at 25", 25]
    assert ends == expected
    assert [each.step for each in trainer.strategy.private.history.epochs] == [9, 17, 25]


def test_max_steps_are_the_steps_that_are_planned():
    trainer = fitted(max_steps=13, max_epochs=-1)
    assert trainer.global_step == 13
    assert trainer.strategy.private.sampling.steps == 13
    assert trainer.strategy.private.privacy_spent().planned_steps == 13


def test_validation_inside_an_epoch_counts_private_steps():
    at = []

    class At(L.Callback):
        def on_validation_start(self, trainer, module):
            if not trainer.sanity_checking:
                at.append(trainer.global_step)

    fitted(validation=rows(20), callbacks=[At()], val_check_interval=5, max_epochs=1)
    assert at == [5, 10]


class Logging(Net):
    def training_step(self, batch, batch_idx):
        losses = self.losses(batch)
        self.log("rows", float(len(losses)), on_step=True, on_epoch=True, reduce_fx="sum")
        self.log_dict({"mean": losses.mean()}, on_epoch=True)
        return {"loss": losses}


def test_what_is_rehearsed_is_not_logged_and_what_is_drawn_is():
    trainer = fitted(Logging(), max_epochs=1)
    private = trainer.strategy.private
    logged = trainer.callback_metrics
    assert logged["rows_epoch"].item() == sum(private.history.private[-1]["norm_counts"])
    mean = private.history.private[-1]["train_loss"]
    assert logged["mean_epoch"].item() == pytest.approx(mean, rel=1e-4)


def test_a_training_loss_is_not_logged_by_itself():
    assert set(fitted().callback_metrics) == {"epsilon"}


@pytest.mark.parametrize(("interval", "times"), [("step", 30), ("epoch", 3)])
def test_schedulers_step_after_private_steps(interval, times):
    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = sgd(self.parameters())
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return [optimizer], [{"scheduler": scheduler, "interval": interval}]

    trainer = fitted(Scheduled())
    [group] = trainer.strategy.private.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.2 * 0.9**times)


def test_a_batch_of_dicts_comes_as_the_loader_gives_it():
    inputs, targets = small_data()

    class Dicts(torch.utils.data.Dataset):
        def __len__(self):
            return len(inputs)

        def __getitem__(self, i):
            return {"label": targets[i], "pixels": inputs[i]}

    class OfDicts(Net):
        def training_step(self, batch, batch_idx):
            assert list(batch) == ["label", "pixels"]
            return self.losses((batch["pixels"], batch["label"]))

    trainer = fitted(OfDicts(), DataLoader(Dicts(), batch_size=12), private=strategy(loss=None))
    assert trainer.strategy.private.done == 30


def test_a_checkpoint_callback_keeps_weights_that_another_module_loads(tmp_path):
    keeper = ModelCheckpoint(tmp_path, save_last=True)
    trainer = fitted(
        validation=rows(20), callbacks=[keeper], enable_checkpointing=True, max_epochs=2
    )
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert held["global_step"] == 20
    again = Net()
    again.load_state_dict(held["state_dict"])
    assert torch.equal(weights(again), weights(trainer.lightning_module))
    assert "accuracy" in trainer.validate(trainer.lightning_module, rows(20), verbose=False)[0]


def test_early_stopping_ends_the_run_and_epsilon_is_that_of_all_that_was_planned():
    stop = EarlyStopping("accuracy", patience=1, min_delta=1.0, mode="max")
    private = fitted(validation=rows(20), callbacks=[stop]).strategy.private
    assert private.done == len(private.ledger) == 20
    assert private.privacy_spent().watched
    assert private.epsilon() == fitted().strategy.private.epsilon()


def test_averaged_weights_are_validated_and_the_run_goes_on():
    average = WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9))
    trainer = fitted(validation=rows(20), callbacks=[average])
    assert trainer.strategy.private.done == 30


class Counting(Net):
    """A metric within the training step."""

    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        outputs = self(inputs)
        self.accuracy(outputs.detach(), targets)
        return cross_entropy(outputs, targets, reduction="none")


def test_a_metric_in_the_training_step_counts_what_is_drawn_and_nothing_rehearsed():
    trainer = fitted(Counting(), private=strategy(loss=None))
    seen = trainer.lightning_module.accuracy.tp + trainer.lightning_module.accuracy.fn
    drawn = [sum(row["norm_counts"]) for row in trainer.strategy.private.history.private]
    assert int(seen.sum()) == sum(drawn) > 300


def test_a_budget_ends_the_fit():
    tight = Privacy(epsilon=1.2, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    trainer = fitted(private=strategy(privacy=tight))
    private = trainer.strategy.private
    assert private.stopped
    assert private.epsilon() <= 1.2
    assert trainer.global_step == private.done < 30


class Interrupting(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise OSError("disk is full")


@pytest.mark.parametrize("step", [17, 20])
def test_a_run_is_taken_up_from_its_folder_and_gives_the_same_weights(step, tmp_path):
    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = sgd(self.parameters())
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    whole = fitted(Scheduled(), private=strategy(run_dir=tmp_path / "whole"))
    begun = strategy(run_dir=tmp_path / "run")
    with pytest.raises(OSError, match="disk is full"):
        fitted(Scheduled(), private=begun, callbacks=[Interrupting(step)])
    begun.private.close()
    private = strategy(run_dir=tmp_path / "run", resume=True)
    trainer = fitted(Scheduled(), private=private)
    assert trainer.global_step == 30
    assert trainer.current_epoch == 3
    assert torch.equal(weights(trainer.lightning_module), weights(whole.lightning_module))
    assert private.private.privacy_spent().steps_charged_again == 0


def test_a_run_that_is_done_is_taken_up_and_trains_no_more(tmp_path):
    first = fitted(private=strategy(run_dir=tmp_path / "run"))
    first.strategy.private.close()
    again = fitted(private=strategy(run_dir=tmp_path / "run", resume=True))
    assert torch.equal(weights(again.lightning_module), weights(first.lightning_module))
    assert again.strategy.private.epsilon() == first.strategy.private.epsilon()


def test_lightning_that_is_missing_is_named_with_the_extra_that_brings_it():
    code = """
import sys
sys.modules["lightning"] = None
from dpsgd_torch import TrainingError
import dpsgd_torch.integrations
try:
    dpsgd_torch.integrations.PrivateStrategy
except TrainingError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("lightning: is missing")
    assert ended.stdout.endswith("pip install 'dpsgd_torch[integrations]'\n")
