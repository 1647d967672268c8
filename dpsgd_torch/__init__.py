"""Train PyTorch models with differential privacy, and stand behind the ε."""

from typing import TYPE_CHECKING

from accountant.late import late
from dpsgd_torch.torchvision_import import mend_import

if TYPE_CHECKING:
    from dpsgd_torch.data.padded import Padded
    from dpsgd_torch.data.tables import Columns
    from dpsgd_torch.errors import (
        ConfigError,
        DataError,
        GuaranteeBroken,
        ModelError,
        PrivateDataWarning,
        RunError,
        TrainingError,
    )
    from dpsgd_torch.layers import (
        WeightNormLinear,
        WeightStandardizedConv2d,
        WeightStandardizedLinear,
    )
    from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
    from dpsgd_torch.privacy.plan import PrivacyPlan, Sampling
    from dpsgd_torch.privacy.privacy import Privacy
    from dpsgd_torch.training.early_stopping import EarlyStopping
    from dpsgd_torch.training.own_loop import Private
    from dpsgd_torch.training.replace_batchnorm import replace_batchnorm
    from dpsgd_torch.training.trainer import Trainer
    from dpsgd_torch.training.validation import Validation
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "data.padded": "Padded",
            "data.tables": "Columns",
            "errors": "ConfigError DataError GuaranteeBroken ModelError PrivateDataWarning "
            "RunError TrainingError",
            "layers": "WeightNormLinear WeightStandardizedConv2d WeightStandardizedLinear",
            "privacy.plan": "PrivacyPlan Sampling",
            "privacy.privacy": "Privacy",
            "privacy.guarantee": "PrivacyGuarantee",
            "training.validation": "Validation",
            "training.replace_batchnorm": "replace_batchnorm",
            "training.trainer": "Trainer",
            "training.early_stopping": "EarlyStopping",
            "training.own_loop": "Private",
        },
        renamed={
            "PrivacySpent": "privacy.guarantee.PrivacyGuarantee",
            "Watch": "training.early_stopping.EarlyStopping",
            **{
                name: f"schedules.{name}"
                for name in ("Constant", "Cosine", "Exponential", "Linear", "Step", "Table")
            },
        },
    )

mend_import()

__all__ = [
    "Columns",
    "ConfigError",
    "DataError",
    "EarlyStopping",
    "GuaranteeBroken",
    "ModelError",
    "Padded",
    "Privacy",
    "PrivacyGuarantee",
    "PrivacyPlan",
    "Private",
    "PrivateDataWarning",
    "RunError",
    "Sampling",
    "Trainer",
    "TrainingError",
    "Validation",
    "WeightNormLinear",
    "WeightStandardizedConv2d",
    "WeightStandardizedLinear",
    "replace_batchnorm",
]
