"""Integrations: the tools people already use; ``pip install 'dpsgd_torch[integrations]'``.

>>> from dpsgd_torch.integrations import MLflowLogger, TensorBoardLogger
"""

from typing import TYPE_CHECKING, Any

from dpsgd_torch.integrations.accelerate import private_with
from dpsgd_torch.integrations.mlflow import MLflowLogger
from dpsgd_torch.integrations.needed import needed
from dpsgd_torch.integrations.tensorboard import TensorBoardLogger

if TYPE_CHECKING:
    from dpsgd_torch.integrations.lightning import PrivateStrategy

__all__ = ["MLflowLogger", "PrivateStrategy", "TensorBoardLogger", "private_with"]


def __getattr__(name: str) -> Any:
    if name != "PrivateStrategy":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return needed("dpsgd_torch.integrations.lightning", "lightning").PrivateStrategy
