"""The small problem in Lightning's way, and a fit of it; imported where lightning is there."""

import lightning.pytorch as L
from small_problem import sgd, small_data, small_model
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch import Privacy
from dpsgd_torch.integrations import PrivateStrategy

PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)


class Net(L.LightningModule):
    """The small problem's model, in Lightning's way."""

    def __init__(self):
        super().__init__()
        self.net = small_model()

    def forward(self, inputs):
        return self.net(inputs)

    def losses(self, batch):
        inputs, targets = batch
        return cross_entropy(self(inputs), targets, reduction="none")

    def training_step(self, batch, batch_idx):
        return self.losses(batch)

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        hits = (self(inputs).argmax(1) == targets).float()
        self.log("accuracy", hits.mean(), prog_bar=True)

    def configure_optimizers(self):
        return sgd(self.parameters())


def rows(count=120, seed=1, batch_size=12, **options):
    return DataLoader(TensorDataset(*small_data(count, seed)), batch_size=batch_size, **options)


def strategy(**changes):
    settings = {
        "privacy": PRIVACY, "physical_batch_size": 5, "seed": 11, "checkpoint_every": 7,
        "loss": nn.CrossEntropyLoss(), **changes,
    }  # fmt: skip
    return PrivateStrategy(**settings)


def fitted(net=None, train=None, validation=None, *, private=None, fit=None, **changes):
    """A Lightning Trainer that has fitted the small problem; keywords go to it."""
    settings = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 3, "logger": False,
        "enable_progress_bar": False, "enable_checkpointing": False,
        "enable_model_summary": False, **changes,
    }  # fmt: skip
    trainer = L.Trainer(strategy=private or strategy(), **settings)
    train = rows(shuffle=True) if train is None else train
    trainer.fit(Net() if net is None else net, train, validation, **(fit or {}))
    return trainer
