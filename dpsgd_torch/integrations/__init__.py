"""Integrations: loggers that a run feeds, and others' ways to train, made private.

``pip install 'dpsgd_torch[integrations]'``; a name loads its library when it is asked for.

>>> from dpsgd_torch.integrations import MLflowLogger, TensorBoardLogger
"""

from typing import TYPE_CHECKING

from accountant.late import late
from dpsgd_torch.integrations.needed import needed

if TYPE_CHECKING:
    from dpsgd_torch.integrations.accelerate import private_with
    from dpsgd_torch.integrations.hugging_face import PrivateTrainer
    from dpsgd_torch.integrations.lightning import PrivateStrategy
    from dpsgd_torch.integrations.mlflow import MLflowLogger
    from dpsgd_torch.integrations.opacus_pieces import BatchMemoryManager
    from dpsgd_torch.integrations.opacus_style import PrivacyEngine
    from dpsgd_torch.integrations.tensorboard import TensorBoardLogger
else:
    _get, __dir__ = late(
        __name__,
        {
            "accelerate": "private_with",
            "hugging_face": "PrivateTrainer",
            "lightning": "PrivateStrategy",
            "mlflow": "MLflowLogger",
            "opacus_pieces": "BatchMemoryManager",
            "opacus_style": "PrivacyEngine",
            "tensorboard": "TensorBoardLogger",
        },
    )

    def __getattr__(name: str) -> object:
        if name == "PrivateStrategy":  # a class of Lightning's, whose module needs it
            needed("lightning", "lightning")
        return _get(name)


__all__ = [
    "BatchMemoryManager",
    "MLflowLogger",
    "PrivacyEngine",
    "PrivateStrategy",
    "PrivateTrainer",
    "TensorBoardLogger",
    "private_with",
]
