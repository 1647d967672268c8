"""What a loop written for Opacus begins with, and the loop."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

N, BATCH, EPOCHS, DELTA = 256, 32, 6, 1e-3


def problem(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def pieces(model=None, loader=None, **changes):
    model = model or network()
    if loader is None:
        loader = DataLoader(TensorDataset(*problem()), batch_size=BATCH)
    return {
        "module": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
        "criterion": nn.CrossEntropyLoss(),
        "data_loader": loader,
        "max_grad_norm": 1.0,
        "grad_sample_mode": "ghost",
        **changes,
    }


def trained(model, optimizer, criterion, loader, epochs=EPOCHS):
    """The loop as Opacus's users have it."""
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
    return model
