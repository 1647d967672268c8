"""Mixed precision clips what it sums: the half-precision factors themselves, in float32."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch.data.trees import call
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.parts import Outer
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.precision import Precision

CPU, C = torch.device("cpu"), 1.0
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * 36, 48), nn.Tanh(), nn.Linear(48, 3))


def convolved() -> nn.Module:
    layers = nn.Conv2d(64, 64, 3), nn.Tanh(), nn.Conv2d(64, 16, 2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(144, 3))


def images(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.randn(count, 64, 6, 6).abs(), torch.randint(3, (count,))


def made(problem) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return problem()


def losses(outputs, targets) -> torch.Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def vectors_of(model, inputs, targets, precision: str, loss=losses):
    asked = Precision.of(precision)
    engine = GraphGradients(model, forward=asked.forward(call, CPU), scale=asked.loss_scale)
    engine.backward(loss, inputs, targets)
    try:
        return engine.vectors(list(model.parameters()))
    finally:
        engine.cleanup()


def of_the_factors(model, inputs, targets, precision: str) -> list[torch.Tensor]:
    """(examples, values) float64: each example's gradient, from the halves that layers met."""
    asked, half = Precision.of(precision), HALVES[precision]
    met, hooks = [], []
    layers = [m for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:

        def keep(module, args, output):
            entry = [module, args[0].detach().to(half).double(), None]
            output.register_hook(lambda g: entry.__setitem__(2, g.double() / asked.loss_scale))
            met.append(entry)

        hooks.append(layer.register_forward_hook(keep))
    (losses(asked.forward(call, CPU)(model, inputs), targets).sum() * asked.loss_scale).backward()
    for hook in hooks:
        hook.remove()
    by_param = {}
    for layer, x, delta in met:
        assert delta.dtype == torch.float64
        if isinstance(layer, nn.Linear):
            by_param[layer.weight] = torch.einsum("no,ni->noi", delta, x).flatten(1)
            by_param[layer.bias] = delta
        else:
            rows = [
                torch.nn.grad.conv2d_weight(x[i : i + 1], layer.weight.shape, delta[i : i + 1])
                for i in range(len(x))
            ]
            by_param[layer.weight] = torch.stack(rows).flatten(1)
            by_param[layer.bias] = delta.sum((2, 3))
    return [by_param[p] for p in model.parameters()]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("problem", [dense, convolved])
def test_vectors_and_norms_are_those_of_the_halves_that_layers_met(problem, precision):
    """A convolution's norm was once a product in bfloat16: up to 30 % off at these sizes."""
    model, (inputs, targets) = made(problem), images()
    exact = torch.cat(of_the_factors(model, inputs, targets, precision), 1)
    vectors = vectors_of(model, inputs, targets, precision)
    for row in range(len(inputs)):
        given, true = torch.cat(vectors.vector(row)), exact[row]
        assert float((given - true).norm()) <= 1e-6 * float(true.norm())
        assert 1 - 1e-6 <= float(vectors.norms[row]) / float(true.norm()) <= 1 + 1e-3


@pytest.mark.parametrize("problem", [dense, convolved])
def test_sums_are_of_the_halves_within_what_they_say(problem):
    model, (inputs, targets) = made(problem), images(24)
    exact = of_the_factors(model, inputs, targets, "bf16")
    factors = torch.rand(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors = vectors_of(model, inputs, targets, "bf16")
    sums, error = vectors.totals(factors, within := 2.0**-12)
    off = [
        total.double().flatten() - factors @ rows for total, rows in zip(sums, exact, strict=True)
    ]
    assert error <= within
    assert float(torch.cat(off).norm()) <= error + 1e-9


def released_change(norms: torch.Tensor, part: Outer, rounded=lambda total: total) -> float:
    """How far the last example moves the clipped sum, whatever norms were told."""
    factors = (C * (1 - PartVectors.margin) / (norms.double() + 1e-6)).clamp(max=1.0)
    sums = []
    for count in (part.count, part.count - 1):
        few = Outer(part.a[:count], part.b[:count])
        total = torch.zeros(few.matrix, dtype=torch.float64)
        few.add_to(total, factors[:count], C * PartVectors.margin / 8)
        sums.append(rounded(total))
    return float((sums[0] - sums[1]).norm())


def adversarial(count: int = 320) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations a hair above the middle of two bfloat16 numbers: all of them round up."""
    a = torch.full((count, 1, 32), 1 + 1.01 * 2.0**-8)
    return a, torch.ones(count, 1, 32)


def test_one_record_moves_the_sum_by_no_more_than_the_clip_where_all_rounds_up():
    a, b = adversarial()
    part = Outer(a.bfloat16(), b.bfloat16())
    squared, lost = part.squared_norms()
    norms = (squared + lost).sqrt()
    assert released_change(norms, part) <= C
    assert released_change(norms, part) > C * (1 - 2 * PartVectors.margin)


def test_norms_of_float32_activations_and_sums_in_half_are_caught():
    """Planted: what the plan's margin does not cover."""
    a, b = adversarial()
    part, other = Outer(a.bfloat16(), b.bfloat16()), Outer(a, b)
    squared, lost = other.squared_norms()
    assert released_change((squared + lost).sqrt(), part) > C
    squared, lost = part.squared_norms()
    norms, in_half = (squared + lost).sqrt(), []
    for count in range(260, 320):
        few = Outer(part.a[:count], part.b[:count])
        in_half.append(released_change(norms[:count], few, lambda sums: sums.bfloat16().double()))
    assert max(in_half) > 1.5 * C


def test_what_overflows_in_float16_counts_as_zero_and_touches_no_other():
    model, (inputs, targets) = made(dense), images()
    inputs[2] *= 1e6
    vectors = vectors_of(model, inputs, targets, "fp16")
    finite = torch.isfinite(vectors.norms)
    assert finite.tolist() == [True, True, False, True, True, True]
    alone = [i for i in range(6) if i != 2]
    others = vectors_of(model, inputs[alone], targets[alone], "fp16")
    sums = vectors.totals(finite.double(), 0.0)[0]
    expected = others.totals(torch.ones(5), 0.0)[0]
    for total, wanted in zip(sums, expected, strict=True):
        assert torch.allclose(total.double(), wanted.double(), rtol=1e-3, atol=1e-6)


def test_a_loss_scale_keeps_what_float16_would_lose():
    model, (inputs, targets) = made(dense), images()
    exact, scaled, bare = (
        vectors_of(model, inputs, targets, name, lambda o, t: 1e-6 * losses(o, t))
        for name in ("float32", "fp16:32768", "fp16:2")
    )
    off, size = [0.0, 0.0], 0.0
    for row in range(len(inputs)):
        true, kept, lost = (v.vector(row)[0] for v in (exact, scaled, bare))
        size += float(true.norm())
        off = [off[0] + float((kept - true).norm()), off[1] + float((lost - true).norm())]
    assert off[0] < 0.02 * size
    assert off[1] > 0.05 * size
