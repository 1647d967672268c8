"""What each example adds to one tensor, written out only where that is the cheaper."""

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.tokens import Tokens
from dpsgd_torch.gradients.parts.written import Written

__all__ = ["Outer", "Part", "Tokens", "Written"]
