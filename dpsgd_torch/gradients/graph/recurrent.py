"""nn.LSTM, GRU, RNN without their fused kernels, whose inside no graph shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Unfused:
    """Recurrent layers of a model run as plain operations, until ``remove``."""

    def __init__(self, model: nn.Module) -> None:
        self._was: list[tuple[bool, bool]] = []
        self._hooks = []
        for layer in model.modules():
            if isinstance(layer, nn.RNNBase):
                self._hooks.append(layer.register_forward_pre_hook(self._off))
                self._hooks.append(layer.register_forward_hook(self._on, always_call=True))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _off(self, layer: nn.Module, args: Any) -> None:
        onednn = bool(torch.backends.mkldnn.enabled)
        self._was.append((onednn, torch.backends.cudnn.enabled))
        if torch.is_grad_enabled():
            self._set(False, False)

    def _on(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._set(*self._was.pop())

    @staticmethod
    def _set(mkldnn: bool, cudnn: bool) -> None:
        torch.backends.mkldnn.enabled = mkldnn  # type: ignore[assignment]
        torch.backends.cudnn.enabled = cudnn
