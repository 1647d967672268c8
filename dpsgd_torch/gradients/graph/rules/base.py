"""What a node rule is given and gives; the table of rules by the node's name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.inputs import input_shape
from dpsgd_torch.gradients.graph.saved import reading
from dpsgd_torch.gradients.parts import Part

# (node, gradient at its output, which inputs are of parameters alone, where the examples are) →
# by input: what each example adds to that input, of the input's own shape.
NodeRule = Callable[[Any, torch.Tensor, Collection[int], Rows], dict[int, Part]]

_RULES: dict[str, NodeRule] = {}


class NoRule(Exception):
    """This node cannot be told apart example by example, and why: "has …", "multiplies …"."""


class NeedsGraph(Exception):
    """A rule calls its node, which cannot be done while a backward pass runs: ask after it."""


class Entangled(Exception):
    """One example's values are not finite, and reach others' gradients: each must pass alone."""


def refuse_within_backward() -> None:
    """Raise ``NeedsGraph`` where a backward pass runs.

    There a node gives only the gradients that pass asked for, and calls of it call this rule.
    """
    if torch._C._current_graph_task_id() != -1 or reading():
        raise NeedsGraph


def node_rule(*names: str) -> Callable[[NodeRule], NodeRule]:
    """Register a rule for backward nodes of these names, as ``node.name()`` gives them.

    An operation without a rule is told apart one example at a time, as many calls of its backward
    as there are examples; a rule is faster. A wrong one is refused before anything is charged.

    The rule is called as ``rule(node, delta, wanted, rows)``:

    * ``node`` holds what the forward pass saved: ``_saved_…``, or ``saved_tensors`` of a
      ``torch.autograd.Function``, whose node is called by its class and ``Backward``.
    * ``delta`` is the gradient of the sum of the losses at its output.
    * ``wanted`` are places in ``node.next_functions`` (the forward's arguments) whose tensors hold
      no examples: they were made of parameters alone.
    * ``rows`` says where the examples are in ``delta``: ``rows.split(delta, 1)`` is (examples,
      steps, …), where all that is flattened into the first dimension are the steps.

    It gives a ``Part`` for each place in ``wanted``, of that input's own shape: ``Written`` of
    (examples, *shape), ``outer`` of the factors of a product, ``Tokens`` of looked-up rows; or it
    raises ``NoRule``.

    >>> from dpsgd_torch.gradients import Written, node_rule
    >>> class Stretch(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x, factor):
    ...         ctx.save_for_backward(x, factor)
    ...         return x * factor
    ...     @staticmethod
    ...     def backward(ctx, delta):
    ...         x, factor = ctx.saved_tensors
    ...         return delta * factor, (delta * x).sum(0)
    >>> @node_rule("StretchBackward")
    ... def stretch(node, delta, wanted, rows):
    ...     x, factor = node.saved_tensors
    ...     return {1: Written(rows.split(delta * x, 1).sum(1))}
    """
    for name in names:
        if not isinstance(name, str):
            raise ModelError(
                f"node_rule({name!r}): takes names of backward nodes; pass output.grad_fn.name()"
            )

    def take(rule: NodeRule) -> NodeRule:
        if not callable(rule):
            raise ModelError(
                f"node_rule({', '.join(names)}) of {type(rule).__name__}: is no function; write "
                "one of (node, delta, wanted, rows)"
            )
        for name in names:
            _RULES[name] = rule
        return rule

    return take


def checked(given: Any, node: Any, wanted: Collection[int], examples: int) -> dict[int, Part]:
    """What a rule gave, if it is a part of as many examples for wanted inputs, of their shapes.

    Raises:
        NoRule: it is something else.
    """
    mend = f"; its rule must return a part of {examples} examples for each of {[*wanted]}"
    if not isinstance(given, dict) or set(given) != set(wanted):
        what = [*given] if isinstance(given, dict) else type(given).__name__
        raise NoRule(f"has a rule that gives {what}{mend}")
    for place, part in given.items():
        shape = input_shape(node, place)
        if not isinstance(part, Part):
            raise NoRule(f"has a rule that gives {type(part).__name__} for input {place}{mend}")
        if part.count != examples or part.shape != shape:
            found = (part.count, *part.shape)
            raise NoRule(
                f"has a rule that gives {found} for input {place} of shape {tuple(shape)}{mend}"
            )
    return given


def rule_for(name: str) -> NodeRule | None:
    return _RULES.get(name)
