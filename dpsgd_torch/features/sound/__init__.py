"""Features of sound that rest on no data: log-mel energies and MFCC, in the integers of a board."""

from dpsgd_torch.features.sound.frontend import KEYWORDS, MACHINES, Frontend
from dpsgd_torch.features.sound.integers import features, model_inputs

__all__ = ["KEYWORDS", "MACHINES", "Frontend", "features", "model_inputs"]
