"""Per-example gradients: clipped sums that are autograd's, or a refusal."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.gradients.graph.rows import Rows
    from dpsgd_torch.gradients.graph.rules.base import NoRule, node_rule
    from dpsgd_torch.gradients.parts import Outer, Part, Tokens, Written, outer
    from dpsgd_torch.gradients.rules.base import LayerRule
    from dpsgd_torch.gradients.rules.registry import register
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "graph.rows": "Rows",
            "graph.rules.base": "NoRule node_rule",
            "parts": "Outer Part Tokens Written outer",
            "rules.base": "LayerRule",
            "rules.registry": "register",
        },
    )

__all__ = [
    "LayerRule",
    "NoRule",
    "Outer",
    "Part",
    "Rows",
    "Tokens",
    "Written",
    "node_rule",
    "outer",
    "register",
]
