"""What each example adds to one tensor, written out only where that is the cheaper."""

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import Outer, outer
from dpsgd_torch.gradients.parts.projected import Projected
from dpsgd_torch.gradients.parts.summed import summed
from dpsgd_torch.gradients.parts.tokens import Joint, Tokens
from dpsgd_torch.gradients.parts.transposed import Transposed
from dpsgd_torch.gradients.parts.written import Written

__all__ = [
    "Joint",
    "Outer",
    "Part",
    "Projected",
    "Tokens",
    "Transposed",
    "Written",
    "outer",
    "summed",
]
