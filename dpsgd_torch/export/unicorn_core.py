"""A Cortex-M core of unicorn's, and the proof that it is the one that was asked for.

With its flag for M-class cores unicorn 2.1.4 takes any model, says nothing, and runs a Cortex-M33.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from dpsgd_torch.errors import ExportError

PROBES = {
    "sxtb16 r0, r0": (bytes.fromhex("2ffa80f0"), {"M4", "M7", "M33"}),
    "vadd.f32 s0, s0, s1": (bytes.fromhex("30ee200a"), {"M4", "M7", "M33"}),
    "vadd.f64 d0, d0, d0": (bytes.fromhex("30ee000b"), {"M7"}),
    "vmaxnm.f32 s0, s0, s0": (bytes.fromhex("80fe000a"), {"M7", "M33"}),
    "lda r1, [r0]": (bytes.fromhex("d0e8af1f"), {"M33"}),
}
"""Instruction → its bytes, and the cores that have it: no two of them have the same."""

_CODE, _DATA, _PAGE = 0x1000, 0x20000000, 0x1000
_FPU_ON, _CPACR_ALL = 1 << 30, 0xF << 20


def core(model: str) -> Any:
    """A fresh emulator of a core, "M3", "M4", "M7" or "M33".

    Raises:
        ExportError: unicorn is missing, or what it runs is another core.
    """
    _refuse_another(model)
    return _core(model)


def executes(model: str, instruction: str) -> bool:
    """Whether that core runs one of ``PROBES``, with its floating-point unit, if any, on."""
    unicorn = _module("unicorn")
    registers = _module("unicorn.arm_const")
    uc = _core(model)
    for page in (_CODE, _DATA):
        uc.mem_map(page, _PAGE)
    code = PROBES[instruction][0]
    uc.mem_write(_CODE, code + bytes.fromhex("00bf"))
    uc.reg_write(registers.UC_ARM_REG_R0, _DATA)
    uc.reg_write(registers.UC_ARM_REG_C1_C0_2, _CPACR_ALL)
    uc.reg_write(registers.UC_ARM_REG_FPEXC, _FPU_ON)
    try:
        uc.emu_start(_CODE | 1, _CODE + len(code), count=1)
    except unicorn.UcError:
        return False
    return True


@cache
def _refuse_another(model: str) -> None:
    for instruction, (_, cores) in PROBES.items():
        if executes(model, instruction) != (model in cores):
            does = "does not run" if model in cores else "runs"
            raise ExportError(
                f"unicorn {_module('unicorn').__version__}: asked for a Cortex-{model} it {does} "
                f"{instruction}, so it emulates another core; install unicorn 2.1.4"
            )


def _core(model: str) -> Any:
    unicorn, registers = _module("unicorn"), _module("unicorn.arm_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)  # never with UC_MODE_MCLASS
    uc.ctl_set_cpu_model(getattr(registers, f"UC_CPU_ARM_CORTEX_{model}"))
    return uc


def _module(name: str) -> Any:
    return importlib.import_module(name)
