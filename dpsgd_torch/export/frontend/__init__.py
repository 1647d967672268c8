"""From samples to a model's input on the board: features of sound, and windows that slide."""

from dpsgd_torch.export.frontend.to_c import frontend_to_c

__all__ = ["frontend_to_c"]
