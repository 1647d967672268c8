"""Compilers and emulators: which are here, how they are called, what they say when they fail."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from dpsgd_torch.errors import BoardTooSmall, ExportError
from dpsgd_torch.export.boards import BOARDS, Board
from dpsgd_torch.export.c_text import with_prefix
from dpsgd_torch.export.elf import Image, read_elf

WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_COMPILE_SECONDS = 300

_INSTALL = {
    "ziglang": "pip install 'dpsgd_torch[mcu]'",
    "unicorn": "pip install 'dpsgd_torch[mcu]'",
    "arm-none-eabi-gcc": "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "apt install qemu-system-arm",
    "riscv64-unknown-elf-gcc": "apt install gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "apt install qemu-system-misc",
    "gcc": "apt install gcc libc6-dev",
    "clang": "apt install clang",
}


def zig_command() -> list[str]:
    """How to call clang from the ziglang wheel."""
    return [sys.executable, "-m", "ziglang", "cc"]


def needs(board: Board) -> tuple[str, ...]:
    """Programs and modules without which a board cannot be checked."""
    if board.runner == "unicorn":
        return ("ziglang", "unicorn")
    return (board.compiler, board.emulator[0])


def has(tool: str) -> bool:
    """Whether a program is on the path or a module can be imported."""
    if tool in ("ziglang", "unicorn"):
        return importlib.util.find_spec(tool) is not None
    return shutil.which(tool) is not None


def available_boards() -> list[Board]:
    """The boards whose compiler and emulator are installed."""
    return [board for board in BOARDS if all(has(tool) for tool in needs(board))]


def missing_tools() -> list[str]:
    """One line a tool that is not here: what it would check and how to install it."""
    lines = []
    for tool, command in _INSTALL.items():
        if has(tool):
            continue
        waiting = [board.name for board in BOARDS if tool in needs(board)] or [
            f"host C with {tool}"
        ]
        lines.append(f"{tool} is missing: not checked: {', '.join(waiting)}; {command}")
    return lines


def require(tool: str) -> None:
    """Raises ExportError, with the command that installs it, where a tool is missing."""
    if not has(tool):
        raise ExportError(f"{tool} is missing: install it with {_INSTALL[tool]}")


def run(
    command: Sequence[str], folder: Path, seconds: float, what: str, stdin: bytes | None = None
) -> bytes:
    """Run a program in a folder; its failure is one line."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what}: no answer within {seconds:g} s") from None
    if done.returncode:
        told = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        marks = ("error:", "ERROR:", "undefined reference", "will not fit", "overflowed")
        telling = [line for line in told if any(mark in line for mark in marks)]
        telling = telling or told or ["no message"]
        raise ExportError(f"{what}: exit status {done.returncode}: {telling[0].strip()}")
    return done.stdout


def firmware(name: str) -> str:
    """One of the firmware's source files."""
    return (files("dpsgd_torch.export") / "firmware" / name).read_text(encoding="utf-8")


def prefix_of(sources: dict[str, str]) -> str:
    """The name that a model's sources were made with."""
    headers = [name for name in sources if name.endswith(".h")]
    if len(headers) != 1:
        raise ExportError(f"sources={sorted(sources)}: must be one model: a .h and a .c file")
    return headers[0].removesuffix(".h")


def put(folder: Path, sources: dict[str, str]) -> None:
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")


def build(
    board: Board,
    sources: dict[str, str],
    folder: Path,
    level: str = "-O2",
    extra: Sequence[str] = (),
) -> Image:
    """Compile and link a whole firmware image for a board, in a folder.

    ``extra`` are objects and libraries that the sources need beside them.

    Raises:
        BoardTooSmall: the image is larger than the board's flash or RAM.
        ExportError: a tool is missing or fails.
    """
    prefix = prefix_of(sources)
    main = "exchange.c" if board.runner == "unicorn" else "semihosting.c"
    put(folder, sources)
    texts = {name: firmware(name) for name in (main, board.start, "memory.h", "timer.h")}
    texts[main] = with_prefix(texts[main], prefix)
    script = firmware("board.ld")
    for name, region in (("FLASH", board.flash), ("RAM", board.ram)):
        script = script.replace(f"@{name}_ORIGIN@", hex(region.origin))
        script = script.replace(f"@{name}_LENGTH@", hex(region.length))
    put(folder, {**texts, "board.ld": script})
    zig = board.compiler == "zig"
    require("ziglang" if zig else board.compiler)
    links: tuple[str, ...] = ("-nostartfiles", "--specs=nosys.specs")
    if zig:
        links = ("-fno-sanitize=all", "-nostdlib")
    libraries: tuple[str, ...] = () if zig else ("-lm",)
    if board.core.startswith("RV"):  # Debian has no C library for it
        links, libraries = ("-nostdlib",), ("-lgcc",)
    command = [
        *(zig_command() if zig else [board.compiler]),
        *(*board.flags, *links, "-std=gnu11", level),
        *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"),
        *((f"-D{board.timer}",) if board.timer else ()),
        *("-I.", "-T", "board.ld", board.start, main, f"{prefix}.c", "-o", "image.elf"),
        *(*extra, *libraries),
    ]
    try:
        run(command, folder, _COMPILE_SECONDS, f"{board.name}: {board.compiler}")
    except ExportError as error:
        for name, region in (("FLASH", board.flash), ("RAM", board.ram)):
            if re.search(f"will not fit in region .{name}", str(error)):
                raise BoardTooSmall(
                    f"{board.name}: its {region.length / 1024:g} KiB of {name} do not hold the "
                    "model; take a larger board"
                ) from None
        raise
    return read_elf((folder / "image.elf").read_bytes())
