"""What a node rule is given and gives; the table of rules by the node's name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.saved import reading
from dpsgd_torch.gradients.parts import Part

# (node, gradient at its output, which inputs are of parameters alone, where the examples are) →
# by input: what each example adds to that input, of the input's own shape.
NodeRule = Callable[[Any, torch.Tensor, Collection[int], Rows], dict[int, Part]]

_RULES: dict[str, NodeRule] = {}


class NoRule(Exception):
    """This node cannot be told apart example by example, and why."""


class NeedsGraph(Exception):
    """A rule calls its node, which cannot be done while a backward pass runs: ask after it."""


def refuse_within_backward() -> None:
    """Raise ``NeedsGraph`` where a backward pass runs.

    There a node gives only the gradients that pass asked for, and calls of it call this rule.
    """
    if torch._C._current_graph_task_id() != -1 or reading():
        raise NeedsGraph


def node_rule(*names: str) -> Callable[[NodeRule], NodeRule]:
    """Register a rule for backward nodes of these names (``node.name()``).

    ``wanted`` are places in ``node.next_functions`` whose tensors hold no examples: they were made
    of parameters alone. The rule gives a part for each, or raises ``NoRule``.
    """

    def take(rule: NodeRule) -> NodeRule:
        for name in names:
            _RULES[name] = rule
        return rule

    return take


def rule_for(name: str) -> NodeRule | None:
    return _RULES.get(name)
