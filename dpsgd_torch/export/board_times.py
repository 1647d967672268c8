"""Milliseconds and microjoules of an inference on named boards: estimated, as ranges.

Time is instructions × cycles per instruction ÷ clock, energy that × the chip's power while it
computes. Instructions are counted in emulation; the other two are ranges from published figures or,
where that is said, assumptions, and both ends are carried through. What is not in them: sensors,
radio, regulators and LEDs of the board, and code that waits for a flash slower than the range
assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal


@dataclass(frozen=True)
class Chip:
    """A board at one clock; ``milliwatts`` while it computes, as (low, high)."""

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
    "Cortex-M7": (0.55, 1.6),
    "Cortex-M0+": (1.3, 3.0),
}
"""Cycles per instruction."""

CYCLES_SOURCE = {
    "Cortex-M4F": "published runs of CMSIS-NN ÷ instructions counted here for the same four "
    "networks: 1.50 to 1.77 (MLPerf Tiny v1.0, closed, OctoML, NUCLEO-L4R5ZI at 120 MHz: 116.2, "
    "10.02, 3.320 and 2.567 inferences a second against 0.584, 7.70, 24.1 and 29.9 million; the "
    "same again in v1.1, closed, Krai); 1.23 to 1.37 on a Cortex-M33 (v1.0, nRF5340 at 128 MHz), "
    "2.07 for the autoencoder in v0.5's reference: other versions and compilers than ours, hence "
    "from 1.2 to 2.1",
    "Cortex-M7": "the Cortex-M4F's × 0.48 to 0.74: the cycles that the same software took on both "
    "for four networks in MLPerf Tiny v1.0, closed (STMicroelectronics, NUCLEO-H7A3ZI-Q at 280 MHz "
    "and L4R5ZI: 0.51 to 0.56; Plumerai, DISCO-F746NG at 216 MHz and L4R5ZI: 0.48 to 0.74)",
    "Cortex-M0+": "the core’s cycle table over the code for the gesture, MNIST and keyword "
    "networks: 1.37 to 1.41 with memory that never waits; up to 3 is an assumption, for weights "
    "that come from serial flash once each: some 66 cycles for 8 bytes",
}

_MLPERF = "MLPerf Tiny, closed, measured energy × inferences a second"
CHIPS = (
    Chip("Arduino Nano 33 BLE Sense", "nRF52840", "Cortex-M4F", 64, (9.9, 23.0), 1_048_576, 262_144,
         "product specification v1.x, current consumption, CoreMark from flash: 3.3 mA (DC/DC; as "
         "8.1 mA with the radio on less the radio’s 4.8) to 6.3 mA (no DC/DC; not looked up "
         "again), 3 to 3.3 V, 10 % more; with the flash’s cache off, its waits come on top"),
    Chip("NUCLEO-L4R5ZI", "STM32L4R5", "Cortex-M4F", 120, (34.0, 98.0), 2_097_152, 655_360,
         f"{_MLPERF}: 35 to 53 mW at 1.8 V (v1.0 OctoML, v1.1 STMicroelectronics and Skymizer, "
         "v1.2 STMicroelectronics); up to 98 at 3.3 V through the chip’s linear regulator"),
    Chip("STM32F4DISCOVERY", "STM32F407", "Cortex-M4F", 168, (118.0, 317.0), 1_048_576, 131_072,
         "assumption: data sheet DS8626, run mode at 3.3 V, 40 mA (peripherals off) to 87 mA (all "
         "on), not looked up again, hence ± 10 %"),
    Chip("Raspberry Pi Pico", "RP2040", "Cortex-M0+", 133, (30.0, 110.0), 2_097_152, 270_336,
         "assumption: 10 to 30 mA at 3.3 V and some more either way; the data sheet’s section 5.4 "
         "tells currents of other programs alone"),
    Chip("NUCLEO-H7A3ZI-Q", "STM32H7A3", "Cortex-M7", 280, (109.0, 150.0), 2_097_152, 1_048_576,
         f"{_MLPERF}: 122 to 136 mW at 3 V with the switching regulator (v1.1 and v1.2, "
         "STMicroelectronics), ± 10 %"),
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
    Arduino Nano 33 BLE Sense (nRF52840, Cortex-M4F, 64 MHz)     18–33 ms, 180–760 µJ
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
    """Two digits of each end, rounded outward: what is told holds what was computed.

    >>> _range((0.838, 1.42)), _range((12.4, 1_249.0))
    ('0.83–1.5', '12–1,300')
    """
    low, high = values
    return f"{_two_digits(low, ROUND_FLOOR)}–{_two_digits(high, ROUND_CEILING)}"


def _two_digits(value: float, rounding: str) -> str:
    exact = Decimal(value)
    rounded = exact.quantize(Decimal((0, (1,), exact.adjusted() - 1)), rounding)
    return f"{rounded:,.0f}" if rounded >= 10 else f"{float(rounded):g}"
