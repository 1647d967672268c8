"""Training functions that tests audit, by name or as they are: honest ones, and ones that fail."""

import os

import torch

RATE, CLIP = 0.002, 0.5


def tiny_data(n=60, seed=0):
    """Made-up pictures of 30 pixels, of which the last 20 are always 0."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.zeros(n, 30)
    inputs[:, :10] = torch.rand(n, 10, generator=generator)
    return inputs, torch.randint(3, (n,), generator=generator)


def trained(data, seed, noise=1.0, steps=1, rows=None):
    """Full-batch DP-SGD of softmax regression, written out; ``rows`` draws others."""
    inputs, targets = data
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(3, inputs.shape[1])
    updates = []
    for step in range(steps):
        at = slice(None) if rows is None else rows(len(inputs), step, generator)
        x, y = inputs[at], targets[at]
        errors = torch.softmax(x @ weight.T, 1) - torch.nn.functional.one_hot(y, 3)
        norms = errors.norm(dim=1) * x.norm(dim=1)
        sums = (errors * (CLIP / norms.clamp(min=CLIP))[:, None]).T @ x
        sums = sums + CLIP * noise * torch.randn(sums.shape, generator=generator)
        updates.append(-RATE * sums)
        weight = weight + updates[-1]
    return weight, updates


def honest(data, seed):
    weight, _ = trained(data, seed)
    return lambda inputs: inputs @ weight.T


def half_noise(data, seed):
    weight, _ = trained(data, seed, noise=0.5)
    return lambda inputs: inputs @ weight.T


def tenth_noise(data, seed):
    weight, _ = trained(data, seed, noise=0.1)
    return lambda inputs: inputs @ weight.T


def poisson(n, step, generator):
    return (torch.rand(n, generator=generator) < 0.2).nonzero().ravel()


def last_always(n, step, generator):
    drawn = torch.rand(n, generator=generator) < 0.2
    drawn[60:] = True  # whoever comes after the sixty that all have
    return drawn.nonzero().ravel()


def shuffled(n, step, generator):
    if step == 0:
        shuffled.order = torch.randperm(n, generator=generator)
    return shuffled.order[step::5]


def poisson_updates(data, seed):
    return trained(data, seed, 0.25, 5, poisson)[1]


def last_always_updates(data, seed):
    return trained(data, seed, 0.25, 5, last_always)[1]


def shuffled_updates(data, seed):
    return trained(data, seed, 0.25, 5, shuffled)[1]


def of_plain_length(data, seed):
    return trained(data, seed, 1.0, 1)[1]


def of_little_noise(data, seed):
    return trained(data, seed, 0.2, 1)[1]


def strongest_step(released, canary):
    """The most that any step shows along the canary's gradient."""
    inputs, target = canary
    along = torch.full((3,), -0.5)
    along[int(target)] = 1.0
    steps = torch.from_numpy(released.reshape(-1, 3, inputs.numel())).float()
    return float((steps @ inputs @ along).max())


def as_module(data, seed):
    weight, _ = trained(data, seed)
    layer = torch.nn.Linear(weight.shape[1], 3, bias=False)
    layer.weight.data.copy_(weight)
    return torch.nn.Sequential(torch.nn.Dropout(0.5), layer)  # attacked in evaluation mode


def seedless(data, seed):
    return honest(data, 0)


def not_finite(data, seed):
    return lambda inputs: torch.full((len(inputs), 3), float("nan"))


def raising(data, seed):
    raise ValueError("no such weights: tensor([0.123])")


def no_model(data, seed):
    return "weights.pt"


def too_few_answers(data, seed):
    return lambda inputs: torch.zeros(1, 3)


def without_seed(data):
    return honest(data, 0)


def dying(data, seed):
    os._exit(3)


NOT_A_FUNCTION = 3
