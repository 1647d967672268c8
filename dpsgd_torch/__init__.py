"""Train PyTorch models with differential privacy, and stand behind the ε."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.errors import (
        ConfigError,
        DataError,
        GuaranteeBroken,
        ModelError,
        RunError,
        TrainingError,
    )
    from dpsgd_torch.layers import WeightNormLinear
    from dpsgd_torch.privacy.guarantee import PrivacySpent
    from dpsgd_torch.privacy.plan import PrivacyPlan, Sampling
    from dpsgd_torch.privacy.privacy import Privacy
    from dpsgd_torch.schedules import Constant, Cosine, Exponential, Linear, Step, Table
    from dpsgd_torch.training.early_stopping import Watch
    from dpsgd_torch.training.replace_batchnorm import replace_batchnorm
    from dpsgd_torch.training.trainer import Trainer
    from dpsgd_torch.training.validation import Validation
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "errors": "ConfigError DataError GuaranteeBroken ModelError RunError TrainingError",
            "layers": "WeightNormLinear",
            "privacy.plan": "PrivacyPlan Sampling",
            "privacy.privacy": "Privacy",
            "schedules": "Constant Cosine Exponential Linear Step Table",
            "privacy.guarantee": "PrivacySpent",
            "training.validation": "Validation",
            "training.replace_batchnorm": "replace_batchnorm",
            "training.trainer": "Trainer",
            "training.early_stopping": "Watch",
        },
    )

__all__ = [
    "ConfigError",
    "Constant",
    "Cosine",
    "DataError",
    "Exponential",
    "GuaranteeBroken",
    "Linear",
    "ModelError",
    "Privacy",
    "PrivacyPlan",
    "PrivacySpent",
    "RunError",
    "Sampling",
    "Step",
    "Table",
    "Trainer",
    "TrainingError",
    "Validation",
    "Watch",
    "WeightNormLinear",
    "replace_batchnorm",
]
