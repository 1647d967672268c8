"""The emulated boards: what they are, how to compile for them, who runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runner = Literal["unicorn", "qemu"]


@dataclass(frozen=True)
class Region:
    """Bytes of memory from an address."""

    origin: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board. ``timer_hz`` is the rate of the counter that the firmware reads."""

    name: str
    core: str
    runner: Runner
    compiler: str
    """``zig``, or the name of a GCC."""
    flags: tuple[str, ...]
    flash: Region
    ram: Region
    emulator: tuple[str, ...]
    """QEMU's program and machine, or the core that unicorn is asked for (and shown to be)."""
    timer: str = ""
    timer_hz: int = 0
    start: str = "start_arm.c"

    def __str__(self) -> str:
        return f"{self.name} ({self.core})"


KIB, MIB = 1024, 1024 * 1024


def _unicorn(core: str, features: str = "") -> Board:
    return Board(
        name=f"unicorn-{core.lower()}",
        core=f"Cortex-{core}",
        runner="unicorn",
        compiler="zig",
        flags=("-target", "thumb-freestanding-eabi", f"-mcpu=cortex_{core.lower()}{features}"),
        flash=Region(0x00000000, MIB),
        ram=Region(0x20000000, 128 * KIB),
        emulator=(core,),
    )


def _qemu(machine: str, core: str, flash: Region, ram: Region, clock: int) -> Board:
    fpu = core in ("M4", "M7", "M33", "M55")
    return Board(
        name=machine,
        core=f"Cortex-{core}{'F' if core == 'M4' else ''}",
        runner="qemu",
        compiler="arm-none-eabi-gcc",
        flags=(
            "-mthumb",
            f"-mcpu=cortex-{core.lower()}",
            *(("-mfloat-abi=hard", "-DFIRMWARE_FPU=1") if fpu else ()),
        ),
        flash=flash,
        ram=ram,
        emulator=("qemu-system-arm", "-M", machine),
        timer="FIRMWARE_NRF51_TIMER" if core == "M0" else "FIRMWARE_SYSTICK",
        timer_hz=clock,
    )


_RAM = 0x20000000
BOARDS: tuple[Board, ...] = (
    _unicorn("M3"),
    _unicorn("M4"),
    _unicorn("M7"),
    _unicorn("M33", "+dsp"),
    _qemu("microbit", "M0", Region(0, 256 * KIB), Region(_RAM, 16 * KIB), 16_000_000),
    _qemu(
        "stm32vldiscovery", "M3", Region(0x08000000, 128 * KIB), Region(_RAM, 8 * KIB), 24_000_000
    ),
    _qemu("netduinoplus2", "M4", Region(0x08000000, MIB), Region(_RAM, 128 * KIB), 168_000_000),
    _qemu("mps2-an500", "M7", Region(0, 4 * MIB), Region(_RAM, 4 * MIB), 25_000_000),
    _qemu(
        "mps2-an505", "M33", Region(0x10000000, 4 * MIB), Region(0x38000000, 4 * MIB), 20_000_000
    ),
    _qemu("mps3-an547", "M55", Region(0, 512 * KIB), Region(_RAM, 512 * KIB), 32_000_000),
    Board(
        name="riscv32-virt",
        core="RV32IMC",
        runner="qemu",
        compiler="riscv64-unknown-elf-gcc",
        flags=(
            "-march=rv32imc_zicsr",
            "-ffreestanding",
            "-mno-relax",
            "-mabi=ilp32",
            "-mcmodel=medany",
            "-msmall-data-limit=0",
        ),
        flash=Region(0x80000000, MIB),
        ram=Region(0x80100000, 128 * KIB),
        emulator=("qemu-system-riscv32", "-M", "virt", "-bios", "none"),
        timer="FIRMWARE_INSTRET",
        timer_hz=1_000_000_000,
        start="start_riscv.c",
    ),
)


def board(name: str) -> Board:
    """The board of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    for candidate in BOARDS:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in BOARDS)
    raise ValueError(f"board={name!r}: unknown; known: {known}")
