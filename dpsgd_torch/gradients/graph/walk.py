"""The graph under a batch's losses: where parameters meet the examples.

A node is *shared* where its value holds no examples: it was made of parameters and constants alone.
A *meeting* is the first node above shared ones that does hold examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.rows import Rows

ACCUMULATE = "torch::autograd::AccumulateGrad"
_HIDING = "CheckpointFunctionBackward"
SAME_ORDER = {  # of one tensor, the same values in the same order
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "UnsqueezeBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "AliasBackward0",
    "CloneBackward0",
    "ToCopyBackward0",
}
_RESHAPED = {  # in any order: shared where that tensor is
    *SAME_ORDER,
    *("TBackward0", "TransposeBackward0", "PermuteBackward0"),
}

Key = tuple[tuple[str, ...], str, tuple[int, ...]]  # parameters, node's name, places of shared ones
Edge = tuple[Any, int]  # a node, which of its outputs


@dataclass
class Meeting:
    """A node at which parameters meet the examples.

    ``wanted`` are the places of its shared inputs; ``use`` counts the meetings of one key.
    """

    node: Any
    key: Key
    use: int
    wanted: tuple[int, ...]
    only_shared: bool
    rows: Rows | None = None
    outputs: list[int] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return self.key[0]

    def shape(self) -> torch.Size:
        """Of the output that is used."""
        return torch.Size(self.node._input_metadata[self.outputs[0]].shape)


Verdict = Callable[[Meeting], bool]  # whether it holds examples; False: it is shared itself


@dataclass
class Walk:
    """What one walk found: all meetings, and the shared nodes below them, children first.

    ``shared`` says of each node of which parameters it is made; ``last`` are the meetings below
    which there is no other; ``passing`` are nodes above meetings, and which inputs are.
    """

    meetings: list[Meeting]
    shared: dict[Any, tuple[str, ...]]
    last: list[Meeting]
    passing: list[tuple[Any, tuple[bool, ...]]]


def walk(
    losses: torch.Tensor, trained: Mapping[nn.Parameter, str], holds_examples: Verdict
) -> Walk:
    """Read the graph under ``losses`` from the parameters up.

    Args:
        holds_examples: asked of each node whose inputs are in part or all shared.

    Raises:
        ModelError: part of the graph is hidden.
    """
    root: Any = losses.grad_fn
    order = _children_first(root)
    outputs: dict[Any, set[int]] = {root: {losses.output_nr}}
    for node in order:
        for child, output in node.next_functions:
            if child is not None:
                outputs.setdefault(child, set()).add(output)
    shared: dict[Any, tuple[str, ...]] = {}
    above: dict[Any, bool] = {}  # of nodes with examples over parameters: is a meeting below?
    passing = list[tuple[Any, tuple[bool, ...]]]()
    meetings, met, uses = list[Meeting](), set[Any](), Counter[Key]()
    for node in order:
        if node.name() == _HIDING:
            raise ModelError(
                "checkpoint = use_reentrant=True: hides its parameters' uses from the graph, so "
                "that they would learn nothing; pass use_reentrant=False"
            )
        if node.name() == ACCUMULATE:
            name = trained.get(node.variable)
            if name is not None:
                shared[node] = (name,)
            continue
        children = [child for child, _ in node.next_functions]
        wanted = tuple(i for i, child in enumerate(children) if child in shared)
        over = [child for child in children if child in above]
        if not wanted and not over:
            continue
        if wanted:
            names = tuple(sorted({n for i in wanted for n in shared[children[i]]}))
            if not over and node.name() in _RESHAPED:
                shared[node] = names
                continue
            key = (names, node.name(), wanted)
            meeting = Meeting(node, key, uses[key], wanted, not over)
            meeting.outputs = sorted(outputs[node])
            if not holds_examples(meeting):
                shared[node] = names
                continue
            uses[key] += 1
            meetings.append(meeting)
            met.add(node)
        above[node] = any(child in met or above[child] for child in over)
        if above[node]:
            passing.append((node, tuple(c in met or above.get(c, False) for c in children)))
    return Walk(meetings, shared, [m for m in meetings if not above[m.node]], passing)


def _children_first(root: Any) -> list[Any]:
    order, seen, stack = list[Any](), set[Any](), [(root, False)]
    while stack:
        node, visited = stack.pop()
        if visited:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions)
    return order
