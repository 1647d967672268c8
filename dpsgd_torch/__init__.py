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
    from dpsgd_torch.plan import PrivacyPlan, Sampling
    from dpsgd_torch.privacy import Privacy
    from dpsgd_torch.schedules import Constant, Cosine, Exponential, Linear, Step, Table
    from dpsgd_torch.spent import PrivacySpent
    from dpsgd_torch.training.held_out import Validation
    from dpsgd_torch.training.replace_batchnorm import replace_batchnorm
    from dpsgd_torch.training.trainer import Trainer
    from dpsgd_torch.training.watch import Watch
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "errors": "ConfigError DataError GuaranteeBroken ModelError RunError TrainingError",
            "layers": "WeightNormLinear",
            "plan": "PrivacyPlan Sampling",
            "privacy": "Privacy",
            "schedules": "Constant Cosine Exponential Linear Step Table",
            "spent": "PrivacySpent",
            "training.held_out": "Validation",
            "training.replace_batchnorm": "replace_batchnorm",
            "training.trainer": "Trainer",
            "training.watch": "Watch",
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
