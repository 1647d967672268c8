"""Models with a trick, and the refusal that the public Trainer owes them."""

import pytest
import torch
from small_problem import make_trainer
from torch import nn

from dpsgd_torch import ModelError


class Made(nn.Module):
    """A linear layer, and what a test does with it."""

    def __init__(self, forward, **more):
        super().__init__()
        self.layer, self.work = nn.Linear(36, 3), forward
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.work(self, x.flatten(1))


def refused(match: str, forward=None, **changes) -> str:
    """The refusal's message; nothing may be charged and the model must be as it was."""
    more, kind = changes.pop("more", {}), changes.pop("kind", ModelError)
    model = changes.pop("model", None) or Made(forward, **more)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(kind, match=match) as caught:
        make_trainer(model=model, **changes)
    for name, value in model.state_dict().items():
        assert torch.equal(
            value,
            before[name],
        ), name
    message = str(caught.value)
    assert "\n" not in message
    assert "tensor(" not in message
    return message


class Words(nn.Module):
    def __init__(self, frozen: bool = False, **more):
        super().__init__()
        self.words = nn.Embedding(4, 6, **more).requires_grad_(not frozen)
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(self.words(x).mean(1))


def some_words(records: int = 60, vocabulary: int = 4):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(vocabulary, (records, 5), generator=generator)
    return x, torch.randint(3, (records,), generator=generator)
