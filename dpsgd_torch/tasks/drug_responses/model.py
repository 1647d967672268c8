"""A network for tables of measurements with many labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from dpsgd_torch.layers import WeightNormLinear


def response_mlp(
    generator: torch.Generator,
    inputs: int,
    labels: int,
    hidden: Sequence[int] = (2048, 1048),
    *,
    dropout: float = 0.5,
    frequencies: torch.Tensor | None = None,
) -> nn.Sequential:
    """(batch, inputs) → (batch, labels) logits.

    The notebook's network, with a layer norm where it has a batch norm: statistics of a batch mix
    examples, and no clip bounds what one of them does to the others.

    Args:
        hidden: widths of the layers between; none makes a linear model.
        dropout: before all layers but the first, which gets 0.4 of it (the notebook: 0.5, 0.2).
        frequencies: (labels,) how often each label is positive; the output starts there.

    >>> model = response_mlp(torch.Generator(), 875, 206)
    >>> sum(p.numel() for p in model.parameters())
    4168738
    """
    layers: list[nn.Module] = []
    widths = [inputs, *hidden]
    for number, (before, after) in enumerate(zip(widths, [*hidden, labels], strict=True)):
        layers.append(nn.LayerNorm(before))
        if dropout:
            layers.append(nn.Dropout(dropout if number else 0.4 * dropout))
        layers.append(WeightNormLinear(before, after))
        if number < len(hidden):
            layers.append(nn.ReLU())
    for layer in layers:
        if isinstance(layer, WeightNormLinear):
            layer.reset_parameters(generator)
    last = layers[-1]
    if frequencies is not None and isinstance(last, WeightNormLinear):
        with torch.no_grad():
            last.bias.copy_(torch.logit(frequencies))
            last.weight_g.mul_(0.1)  # or the first guesses drown in what random weights say
    return nn.Sequential(*layers)


class SilentControls(nn.Module):
    """A network whose logits begin lower by ``by`` in rows that have 1 in a column, not 0.

    Of drug responses: rows treated with the vehicle alone, which the data's description says have
    no mechanism. What is subtracted is fixed, and rests on the row's own inputs.

    >>> silent = SilentControls(nn.Linear(2, 3), column=0)
    >>> inputs = torch.tensor([[0.0, 5.0], [1.0, 5.0]])
    >>> (silent.network(inputs) - silent(inputs)).round().tolist()
    [[0.0, 0.0, 0.0], [6.0, 6.0, 6.0]]
    """

    def __init__(self, network: nn.Module, column: int, by: float = 6.0) -> None:
        super().__init__()
        self.network, self.column, self.by = network, column, by

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(batch, inputs) → (batch, labels)."""
        logits: torch.Tensor = self.network(inputs)
        return logits - self.by * inputs[:, self.column : self.column + 1]


def log_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over labels of the binary cross entropy of each example, from logits.

    Over examples this is the mean column-wise log loss by which the competition ranks.

    >>> log_loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([0.6931])
    """
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)
