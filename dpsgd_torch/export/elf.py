"""The little of an ELF file that an emulator and a footprint need."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_ALLOC, _WRITE = 2, 1
_NOBITS = 8


@dataclass(frozen=True)
class Image:
    """A linked 32-bit little-endian program."""

    entry: int
    segments: tuple[tuple[int, bytes], ...]
    """(load address, bytes): what is written into flash."""
    symbols: dict[str, int]
    sizes: dict[str, int]
    flash_bytes: int
    static_ram_bytes: int


def read_elf(data: bytes) -> Image:
    """Parse an executable.

    Raises:
        ValueError: the bytes are no 32-bit little-endian ELF file.
    """
    if data[:6] != b"\x7fELF\x01\x01":
        raise ValueError("not a 32-bit little-endian ELF file")
    (entry, program_at, section_at) = struct.unpack_from("<3I", data, 24)
    program_size, programs, section_size, sections, _ = struct.unpack_from("<5H", data, 42)
    segments = []
    for i in range(programs):
        kind, offset, _, address, size = struct.unpack_from(
            "<5I", data, program_at + i * program_size
        )
        if kind == 1 and size:
            segments.append((address, data[offset : offset + size]))
    headers = [
        struct.unpack_from("<10I", data, section_at + i * section_size) for i in range(sections)
    ]
    flash = ram = 0
    symbols: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for _, kind, flags, _, offset, size, link, _, _, entry_size in headers:
        if flags & _ALLOC:
            flash += size if kind != _NOBITS else 0
            ram += size if flags & _WRITE else 0
        if kind == 2:  # the symbol table
            names = data[headers[link][4] :]
            for at in range(offset, offset + size, entry_size):
                name, value, length = struct.unpack_from("<3I", data, at)
                text = names[name : names.index(b"\0", name)].decode("ascii", "replace")
                symbols[text], sizes[text] = value, length
    return Image(entry, tuple(segments), symbols, sizes, flash, ram)
