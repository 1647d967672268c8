"""Milliseconds and microjoules of an inference on named boards: estimated, as ranges.

Time is instructions × cycles per instruction ÷ clock, energy that × the chip's power while it
computes. Instructions are counted in emulation; the other two are published figures, each a range,
and both ends are carried through. What is not in them: sensors, radio, regulators and LEDs of the
board, and code that waits for a flash slower than the range assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Chip:
    """``cycles`` per instruction and ``milliwatts`` while it computes, as (low, high)."""

    board: str
    chip: str
    core: Literal["Cortex-M4F", "Cortex-M7", "Cortex-M0+"]
    megahertz: float
    milliwatts: tuple[float, float]
    flash_bytes: int
    ram_bytes: int
    power_source: str


CYCLES: dict[str, tuple[float, float]] = {
    "Cortex-M4F": (1.2, 2.1),
    "Cortex-M7": (0.8, 1.5),
    "Cortex-M0+": (1.2, 2.0),
}
"""Cycles per instruction."""

CYCLES_SOURCE = {
    "Cortex-M4F": "published runs of CMSIS-NN ÷ instructions counted here for the same four "
    "networks: 1.50 to 1.77 (MLPerf Tiny v1.0, closed, OctoML, NUCLEO-L4R5ZI at 120 MHz: 116.2, "
    "10.02, 3.320 and 2.567 inferences a second against 0.584, 7.70, 24.1 and 29.9 million); 1.23 "
    "to 1.37 on a Cortex-M33 (the same, nRF5340 at 128 MHz), 2.07 for the autoencoder in MLPerf "
    "Tiny v0.5's reference: other versions and compilers than ours, hence from 1.2 to 2.1",
    "Cortex-M7": "the Cortex-M4F's × 3.42 ÷ 5.01, Arm's CoreMark/MHz of the two; no run of known "
    "instructions",
    "Cortex-M0+": "the core's manual: 1 cycle, 2 for a load, a store or a branch taken; no run of "
    "known instructions, and misses of the flash cache not counted",
}

CHIPS = (
    Chip("Arduino Nano 33 BLE Sense", "nRF52840", "Cortex-M4F", 64, (9.9, 18.9), 1_048_576, 262_144,
         "product specification, CoreMark from flash at 3 V: 3.3 mA (DC/DC) to 6.3 mA (LDO)"),
    Chip("NUCLEO-L4R5ZI", "STM32L4R5", "Cortex-M4F", 120, (46.0, 57.0), 2_097_152, 655_360,
         "MLPerf Tiny v1.0, closed, OctoML: 51.5 mW measured, ± 10 %"),
    Chip("STM32F4DISCOVERY", "STM32F407", "Cortex-M4F", 168, (132.0, 287.0), 1_048_576, 131_072,
         "data sheet DS8626, run mode at 3.3 V: 40 mA (peripherals off) to 87 mA (all on)"),
    Chip("Raspberry Pi Pico", "RP2040", "Cortex-M0+", 133, (33.0, 86.0), 2_097_152, 270_336,
         "data sheet, core supply by clock, through the linear regulator from 3.3 V: 10 to 26 mA"),
    Chip("NUCLEO-H743ZI", "STM32H743", "Cortex-M7", 480, (360.0, 760.0), 2_097_152, 524_288,
         "data sheet DS12110, run mode at 3.3 V: 110 to 230 mA (peripherals off to on)"),
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Ranges; ``fits``: flash and RAM of the image in the chip's."""

    chip: Chip
    milliseconds: tuple[float, float]
    microjoules: tuple[float, float]
    fits: bool

    def cells(self) -> tuple[str, str, str, str]:
        """(board, milliseconds, microjoules, whether it fits)."""
        chip = self.chip
        what = f"{chip.board} ({chip.chip}, {chip.core}, {chip.megahertz:g} MHz)"
        fits = "" if self.fits else "does not fit"
        return what, _range(self.milliseconds), _range(self.microjoules), fits

    def __str__(self) -> str:
        what, time, energy, fits = self.cells()
        return f"{what:60} {time} ms, {energy} µJ" + (f"; {fits}" if fits else "")


def estimates(
    instructions: float, instructions_m0: float, flash_bytes: int, ram_bytes: int
) -> list[Estimate]:
    """One a chip; ``instructions_m0`` are those of the code for a Cortex-M0+.

    >>> print(estimates(1e6, 4e6, 40_000, 4_000)[0])
    Arduino Nano 33 BLE Sense (nRF52840, Cortex-M4F, 64 MHz)     19–33 ms, 190–620 µJ
    """
    found = []
    for chip in CHIPS:
        count = instructions_m0 if chip.core == "Cortex-M0+" else instructions
        low, high = (count * cycles / chip.megahertz / 1e3 for cycles in CYCLES[chip.core])
        energy = low * chip.milliwatts[0], high * chip.milliwatts[1]
        fits = flash_bytes <= chip.flash_bytes and ram_bytes <= chip.ram_bytes
        found.append(Estimate(chip, (low, high), energy, fits))
    return found


def sources() -> list[str]:
    """Where each constant is from, a line each."""
    lines = [
        f"{core}: {low:g} to {high:g} cycles an instruction; {CYCLES_SOURCE[core]}"
        for core, (low, high) in CYCLES.items()
    ]
    return lines + [
        f"{chip.chip}: {chip.milliwatts[0]:g} to {chip.milliwatts[1]:g} mW; {chip.power_source}"
        for chip in CHIPS
    ]


def _range(values: tuple[float, float]) -> str:
    return "–".join(_two_digits(value) for value in values)


def _two_digits(value: float) -> str:
    """
    >>> [_two_digits(value) for value in (0.0123, 3.14, 1234.0)]
    ['0.012', '3.1', '1,200']
    """
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
