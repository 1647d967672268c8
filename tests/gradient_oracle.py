"""Clipped sums by autograd in float64, one example at a time: what every engine is held against."""

import copy

import torch
from torch import nn

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients

LOSS = per_example(nn.CrossEntropyLoss())


def gradients_alone(model, data, loss=LOSS) -> torch.Tensor:
    """(examples, parameters) in float64."""
    twin = copy.deepcopy(model).double()
    params = [p for p in twin.parameters() if p.requires_grad]
    rows = []
    for x, y in zip(*data, strict=True):
        x = x.double() if x.is_floating_point() else x
        y = y.double() if y.is_floating_point() else y
        total = loss(twin(x[None]), y[None]).sum()
        found = torch.autograd.grad(total, params)
        rows.append(torch.cat([g.to_dense().flatten() for g in found]))
    return torch.stack(rows)


def clipped(rows: torch.Tensor, clip: float) -> torch.Tensor:
    return (rows * (clip / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)).sum(0)


def engine_sum(model, data, kind: str, clip: float, loss=LOSS) -> torch.Tensor:
    """What a step would add up, without its noise."""
    params = [p for p in model.parameters() if p.requires_grad]
    with per_example_gradients(model, kind) as engine:
        engine.backward(loss, *data)
        vectors = engine.vectors(params)
        sums = [p.detach().new_zeros(p.shape, dtype=torch.float64) for p in params]
        vectors.add_to(sums, (clip / vectors.norms).clamp(max=1.0))
    return torch.cat([total.flatten() for total in sums])


def error_of_the_clipped_sum(model, data, kind: str = "graph", loss=LOSS) -> float:
    """Relative L2 distance from the oracle, at the median norm as clip."""
    rows = gradients_alone(model, data, loss)
    clip = float(rows.norm(dim=1).median())
    wanted = clipped(rows, clip)
    return float((engine_sum(model, data, kind, clip, loss) - wanted).norm() / wanted.norm())
