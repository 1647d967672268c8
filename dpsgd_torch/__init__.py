"""Train PyTorch models with differential privacy, and stand behind the ε."""

from dpsgd_torch.errors import (
    ConfigError,
    DataError,
    GuaranteeBroken,
    ModelError,
    RunError,
    TrainingError,
)
from dpsgd_torch.plan import PrivacyPlan, Sampling
from dpsgd_torch.privacy import Privacy
from dpsgd_torch.schedules import Constant, Linear
from dpsgd_torch.spent import PrivacySpent
from dpsgd_torch.training.trainer import Trainer
from dpsgd_torch.training.validation import replace_batchnorm

__all__ = [
    "ConfigError",
    "Constant",
    "DataError",
    "GuaranteeBroken",
    "Linear",
    "ModelError",
    "Privacy",
    "PrivacyPlan",
    "PrivacySpent",
    "RunError",
    "Sampling",
    "Trainer",
    "TrainingError",
    "replace_batchnorm",
]
