"""Map-style datasets of the small problem's rows, as users write them."""

import os
import signal

import numpy as np
import torch
from small_problem import small_data
from torch.utils.data import Dataset

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.in_memory import InMemory


class Pictures(Dataset):
    """Rows of the small problem, one at a time; ``change`` (row, x) → x, as a fault would."""

    def __init__(self, records=120, seed=1, change=None):
        self.inputs, self.targets = small_data(records, seed)
        self.change = change

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, row):
        x = self.inputs[row]
        return (x if self.change is None else self.change(row, x)), int(self.targets[row])


class Held(Data):
    """The rows of a dataset as tensors in memory, under its fingerprint, which keys the noise."""

    schema, told_whole = None, True

    def __init__(self, data):
        self.held = InMemory(*data.take(np.arange(len(data))))
        self.schema, self.told = self.held.schema, [*data.fingerprint()]

    def __len__(self):
        return len(self.held)

    def take(self, indices):
        return self.held.take(indices)

    def fingerprint(self):
        yield from self.told


class Named(Pictures):
    """Each a dict, as of a model that is called by names."""

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return {"label": y, "x": x.numpy(), "twice": 2 * x}


class Armed:
    """Does harm to the rows that it is told of, once a file is there; also in a worker."""

    def __init__(self, path, rows, harm):
        self.path, self.rows, self.harm = path, rows, harm

    def __call__(self, row, x):
        return self.harm(row, x) if row in self.rows and self.path.exists() else x


def dies(row, x):
    os.kill(os.getpid(), signal.SIGKILL)


def fails(row, x):
    raise OSError(f"truncated file of row {row}, {x}")


def shrinks(row, x):
    return x[:, 1:]


def widens(row, x):
    return x.double()


def noisy(x):
    return x + torch.rand(x.shape)


def summed(x):
    """By a sum that is another, in its last digits, with another number of threads."""
    return x + torch.rand(300_001).sum()
