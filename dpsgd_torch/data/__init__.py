"""Data: what records a run trains on, one kind a file; base.py is the interface."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.data.base import Data, Schema, Tensor
    from dpsgd_torch.data.dataset import FromDataset
else:
    __getattr__, __dir__ = late(__name__, {"base": "Data Schema Tensor", "dataset": "FromDataset"})

__all__ = ["Data", "FromDataset", "Schema", "Tensor"]
