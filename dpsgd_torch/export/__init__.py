"""From a trained model, or a run's folder, to files for microcontrollers and other runtimes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpsgd_torch.export.api import Exported as Exported
    from dpsgd_torch.export.api import export_model as export_model

__all__ = ["Exported", "export_model"]


def __getattr__(name: str) -> Any:
    """The public names, loaded when asked for: they bring onnx along."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dpsgd_torch.export import api

    return getattr(api, name)
