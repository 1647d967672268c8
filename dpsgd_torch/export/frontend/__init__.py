"""From samples to a model's input on the board: features of sound, and windows that slide."""

from dpsgd_torch.export.frontend.stream import Stream, stream_to_c
from dpsgd_torch.export.frontend.to_c import frontend_to_c

__all__ = ["Stream", "frontend_to_c", "stream_to_c"]
