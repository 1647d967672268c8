"""Mixed precision: passes in bfloat16 or float16, everything that a promise rests on in float32."""

from __future__ import annotations

import contextlib
import copy
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accountant import InvalidValue

if TYPE_CHECKING:
    import torch

LOSS_SCALE = 1024.0
_TELLS = ("flags", "Features")  # of /proc/cpuinfo, on x86 and on ARM
_DTYPES = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_ISA = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"avx512_fp16", "amx_fp16", "fphp"}}


@dataclass(frozen=True)
class Precision:
    """Mixed precision [Micikevicius et al. 2018] that differential privacy stands on.

    * Forward and backward passes run under ``torch.autocast``; outputs are float32 again before
      the loss, and parameters, norms, clip, sums, noise and the optimizer always were (sums and
      noise float64).
    * What is clipped is what is summed: an example's vector is Σ_t a_t ⊗ b_t of the half-precision
      activations and output gradients themselves, which float32 holds exactly. Its norm is that
      vector's to within γ_n, n ≤ 768 terms of rounding 2⁻²⁴, added to it; its part of the sum is
      that vector's in one float32 product whose error is measured, or in float64. No weight
      gradient that autograd rounded to half enters either: an example that is by itself in a pass
      because of who else was drawn goes in a pass of two of it.
    * So the bound is float32's: vectors are clipped to (1 − 2⁻⁹) C. Half of that margin covers
      norms; of the other half each of two neighbours' sums may be off by half. A norm taken from
      float32 activations, or a sum rounded to half (2⁻⁸ of *it*, which may be many C), is covered
      by none of this.
    * Kernels are taken to round an example alike whatever else is in its batch, as they are in
      float32; where one does not, each other vector moves by some 2⁻⁸ of it in half.
    * ``loss_scale``: what fp16 losses are multiplied by on the way back, and vectors divided by: a
      public power of 2. What overflows is not finite, and counts as zero.

    >>> Precision.of("fp16:4096")
    Precision(name='fp16', loss_scale=4096.0)
    >>> str(Precision.of("bf16")), str(Precision.of("fp16"))
    ('bf16', 'fp16:1024')
    """

    name: str = "float32"
    loss_scale: float = 1.0

    @classmethod
    def of(cls, text: str | Precision) -> Precision:
        """ "float32", "bf16", "fp16" or "fp16:SCALE".

        Raises:
            InvalidValue: it is something else.
        """
        if isinstance(text, Precision):
            return text
        name, colon, scale = str(text).partition(":")
        if name not in _DTYPES or (colon and name != "fp16"):
            raise InvalidValue(
                f"precision = {text}: must be float32, bf16, fp16 or fp16:SCALE, SCALE a power of "
                "2; name one of them"
            )
        if name != "fp16":
            return cls(name)
        if scale == "dynamic":
            raise InvalidValue(
                f"precision = {text}: a scale that follows what overflowed follows the records, "
                "and says so in every later step; name a fixed one, such as fp16:1024"
            )
        try:
            given = float(scale) if colon else LOSS_SCALE
        except ValueError:
            given = math.nan
        if not 1 < given <= 2.0**24 or math.frexp(given)[0] != 0.5:
            raise InvalidValue(
                f"precision = {text}: the loss scale must be a power of 2 from 2 to 2^24, by which "
                "norms are divided without rounding; fp16:1024 is the default"
            )
        return cls(name, given)

    def __str__(self) -> str:
        return self.name if self.loss_scale == 1 else f"{self.name}:{self.loss_scale:.0f}"

    @property
    def is_mixed(self) -> bool:
        return self.name != "float32"

    def dtype(self) -> torch.dtype:
        """What passes run in."""
        import torch

        found: torch.dtype = getattr(torch, _DTYPES[self.name])
        return found

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """What passes run under: nothing for float32."""
        import torch

        if not self.is_mixed:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.dtype())

    def forward(
        self, call: Callable[[Any, Any], Any], device: torch.device
    ) -> Callable[[Any, Any], Any]:
        """``call`` of a model and inputs under autocast; its outputs in float32."""
        if not self.is_mixed:
            return call

        def mixed(model: Any, inputs: Any) -> Any:
            with self.autocast(device):
                outputs = call(model, inputs)
            return in_full(outputs)

        return mixed

    @contextlib.contextmanager
    def within(self, model: torch.nn.Module, device: torch.device) -> Iterator[None]:
        """The same in each call of the model that trains, whoever calls it."""
        import torch

        entered: list[contextlib.ExitStack] = []

        def before(module: torch.nn.Module, args: Any) -> None:
            entered.append(contextlib.ExitStack())
            if module.training and torch.is_grad_enabled():
                entered[-1].enter_context(self.autocast(device))

        def after(module: torch.nn.Module, args: Any, outputs: Any) -> Any:
            entered.pop().close()
            return in_full(outputs) if module.training and torch.is_grad_enabled() else outputs

        if not self.is_mixed:
            yield
            return
        hooks = (
            model.register_forward_pre_hook(before),
            model.register_forward_hook(after, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def refuse_unfit(self, device: torch.device) -> None:
        """Refuse a device on which a product or a convolution does not run in this precision.

        Raises:
            InvalidValue: naming another precision.
        """
        import torch

        if not self.is_mixed:
            return
        why = ""
        if device.type == "cuda" and self.name == "bf16" and not torch.cuda.is_bf16_supported():
            why = f"{torch.cuda.get_device_name(device)} has no bfloat16"
        try:
            with torch.enable_grad(), self.autocast(device):
                x = torch.ones(2, 1, 4, 4, device=device)
                kernel = torch.ones(2, 1, 2, 2, device=device, requires_grad=True)
                matrix = torch.ones(3, 18, device=device, requires_grad=True)
                seen = torch.nn.functional.conv2d(x, kernel).flatten(1)
                out = torch.nn.functional.linear(seen, matrix)
            torch.autograd.grad(out.float().sum(), (kernel, matrix))
        except (RuntimeError, TypeError, AssertionError) as error:
            why = why or str(error).partition("\n")[0]
        if why:
            other = "fp16, or float32" if self.name == "bf16" else "bf16, or float32"
            raise InvalidValue(f"precision = {self}: device {device} cannot ({why}); pass {other}")

    def slowness(self, device: torch.device) -> str:
        """One line, where the device works in this precision but has no instructions for it."""
        if not self.is_mixed or device.type != "cpu" or cpu_flags() & _ISA[self.name]:
            return ""
        return (
            f"precision = {self}: this CPU ({platform.machine()}) has no instructions for it "
            f"({', '.join(sorted(_ISA[self.name]))}), so it works, but slower than float32"
        )


FLOAT32 = Precision()


def cpu_flags() -> set[str]:
    """The instruction sets that the kernel tells of; empty where it tells of none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    told = (line.partition(":") for line in lines)
    return next((set(to.split()) for key, _, to in told if key.strip() in _TELLS), set())


def refuse_open_autocast(device: torch.device) -> None:
    """Refuse an autocast that is open around training.

    Raises:
        InvalidValue: it is; its casts of weights would outlive the steps that change those.
    """
    import torch

    if torch.is_autocast_enabled(device.type):
        raise InvalidValue(
            "autocast: is open around training, and keeps casts of weights that steps change; "
            "close it, and pass precision='bf16'"
        )


def in_full(outputs: Any) -> Any:
    """Outputs of a model, those tensors in float32 that are in half."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
    if isinstance(outputs, dict):
        full = copy.copy(outputs)
        for key, value in outputs.items():
            full[key] = in_full(value)
        return full
    if type(outputs) in (tuple, list):
        return type(outputs)(map(in_full, outputs))
    return outputs
