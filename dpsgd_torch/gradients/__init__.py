"""Per-example gradients: clipped sums that are autograd's, or a refusal."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.gradients.rules.base import ClosedForm, LayerRule
    from dpsgd_torch.gradients.rules.registry import register
    from dpsgd_torch.gradients.rules.slots import Slots
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "rules.base": "ClosedForm LayerRule",
            "rules.registry": "register",
            "rules.slots": "Slots",
        },
    )

__all__ = ["ClosedForm", "LayerRule", "Slots", "register"]
