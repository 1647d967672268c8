"""Graph nodes under test: where parameters first meet examples, and the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NodeRule, rule_for
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.parts import Part

EXAMPLES, EXACT = 3, 1e-10
INDICES = torch.tensor([[0, 1, 1, 5], [2, 5, 2, 2], [1, 4, 1, 6]])


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    given = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=given)


def data(*shape: int) -> torch.Tensor:
    return drawn(shape, 0).requires_grad_()


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(drawn(shape, 100))


def flat(output: torch.Tensor) -> torch.Tensor:
    return output.unflatten(0, (EXAMPLES, -1))


def second(output: torch.Tensor) -> torch.Tensor:
    return output.movedim(1, 0)


def leaves(node: Any) -> set[int]:
    """Which leaves a node was made of."""
    if node is None:
        return set()
    if hasattr(node, "variable"):
        return {id(node.variable)}
    return set().union(*(leaves(child) for child, _ in node.next_functions))


def meeting(
    output: torch.Tensor, parameters: list[torch.Tensor], name: str
) -> tuple[Any, list[int]]:
    """The node of this name, and which of its inputs are of parameters alone."""
    own, stack, seen = {id(parameter) for parameter in parameters}, [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        wanted = [
            place
            for place, (child, _) in enumerate(node.next_functions)
            if leaves(child) and leaves(child) <= own
        ]
        if wanted and node.name() == name:
            return node, wanted
        stack.extend(child for child, _ in node.next_functions)
    raise AssertionError(f"no {name} under {output.grad_fn}")


def compared(
    forward: Callable[[], torch.Tensor],
    parameters: list[torch.Tensor],
    name: str,
    *,
    at: Callable[[torch.Tensor], torch.Tensor] = lambda output: output,
    rule: NodeRule | None = None,
    own_rule: bool = True,
    also: tuple[torch.Tensor, ...] = (),
) -> float:
    """Greatest relative error of the node's parts, pulled back to parameters, against autograd.

    ``at`` brings the output to (examples, …). Where the examples are in δ is found by what one
    example's gradient reaches. Autograd is asked for the gradients of ``also`` as well.
    """
    torch.manual_seed(1)
    output = forward()
    upper = torch.randn_like(at(output))
    alone = [
        upper * (torch.arange(EXAMPLES) == i).view(-1, *(1,) * (upper.dim() - 1))
        for i in range(EXAMPLES)
    ]
    node, wanted = meeting(output, parameters, name)

    def delta_of(cotangent: torch.Tensor) -> torch.Tensor:
        (delta,) = torch.autograd.grad(
            at(output), (GradientEdge(node, 0),), cotangent, retain_graph=True
        )
        return delta

    found = rule or rule_for(name)
    assert (found is not None) == (own_rule or rule is not None), f"a rule of its own: {name}"
    delta, rows = delta_of(upper), _rows([delta_of(one) for one in alone])
    with torch.no_grad():
        parts = (found or one_at_a_time)(node, delta, wanted, rows)
    assert set(parts) == set(wanted)
    worst = 0.0
    for i, one in enumerate(alone):
        truth = torch.autograd.grad(at(output), [*parameters, *also], one, retain_graph=True)
        ours = _pulled_back(node, parts, i, parameters)
        for ours_of_one, truth_of_one in zip(ours, truth, strict=False):
            assert truth_of_one.to_dense().abs().max() > 0, "a test that cannot fail"
            error = (ours_of_one - truth_of_one).abs().max() / truth_of_one.to_dense().abs().max()
            worst = max(worst, error.item())
    return worst


def _pulled_back(
    node: Any, parts: dict[int, Part], example: int, parameters: list[torch.Tensor]
) -> list[torch.Tensor]:
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for place, part in parts.items():
        child, output = node.next_functions[place]
        assert part.count == EXAMPLES
        assert part.shape == torch.Size(child._input_metadata[output].shape)
        row = part.written()[example]
        assert row.dtype == child._input_metadata[output].dtype
        brought = torch.autograd.grad(
            (GradientEdge(child, output),), parameters, (row,), retain_graph=True, allow_unused=True
        )
        for total, gradient in zip(totals, brought, strict=True):
            if gradient is not None:
                total += gradient
    return totals


def _rows(deltas: list[torch.Tensor]) -> Rows:
    """By trying: the only place where each example's gradient is all that its own reaches."""
    shape = deltas[0].shape
    fits = []
    for dim, size in enumerate(shape):
        for outer in range(1, size // EXAMPLES + 1):
            if size % (outer * EXAMPLES):
                continue
            rows = Rows(EXAMPLES, dim, outer)
            if all(
                rows.split(delta, len(shape))[torch.arange(EXAMPLES) != i].abs().max() == 0
                for i, delta in enumerate(deltas)
            ):
                fits.append(rows)
    assert len(fits) == 1, f"examples lie in {len(fits)} ways in {tuple(shape)}"
    return fits[0]
