"""Integrations: loggers that a run feeds; ``pip install 'dpsgd_torch[integrations]'``.

>>> from dpsgd_torch.integrations import MLflowLogger, TensorBoardLogger
"""

from dpsgd_torch.integrations.mlflow import MLflowLogger
from dpsgd_torch.integrations.tensorboard import TensorBoardLogger

__all__ = ["MLflowLogger", "TensorBoardLogger"]
