"""What is made of released gradients and weights: post-processing, which costs no ε."""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from dpsgd_torch.optim.adam_bc import AdamBC
    from dpsgd_torch.optim.averages import Exponential, Tail
    from dpsgd_torch.optim.base import Average, Filter
    from dpsgd_torch.optim.disk import Disk
    from dpsgd_torch.optim.doppler import Doppler
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "adam_bc": "AdamBC",
            "averages": "Exponential Tail",
            "base": "Average Filter",
            "disk": "Disk",
            "doppler": "Doppler",
        },
    )

__all__ = ["AdamBC", "Average", "Disk", "Doppler", "Exponential", "Filter", "Tail"]
