"""What each layer costs, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from dpsgd_torch.export.board_times import estimates
from dpsgd_torch.export.cost import Cost

_BAR = 20


def rows_of(cost: Cost) -> list[tuple[str, ...]]:
    """(number, name, output, flash, RAM, instructions, share), a layer each, then the rest."""
    rows: list[tuple[str, ...]] = []
    for index, layer in enumerate(cost.layers):
        shape = "×".join(map(str, layer.shape))
        peak = f"{layer.ram_bytes:,}{' ◂' if index == cost.peak else '  '}"
        part = layer.instructions / cost.counted
        share = f"{part:.1%}" if part >= 0.0005 else "< 0.1%"
        count = f"{layer.instructions:,}"
        rows.append((str(index), layer.name, shape, f"{layer.flash_bytes:,}", peak, count, share))
    constants = sum(layer.flash_bytes for layer in cost.layers)
    other = cost.flash_bytes - constants - cost.code_bytes
    rows += [
        ("", "kernels and calls", "", f"{cost.code_bytes:,}", "", f"{cost.rest:,}", ""),
        ("", "start-up and harness", "", f"{other:,}", "", "", ""),
        ("", "arena", "", "", f"{cost.arena_bytes:,}  ", "", ""),
        ("", "input and output buffers", "", "", f"{cost.buffer_bytes:,}  ", "", ""),
        ("", "stack and other", "", "", f"{_other_ram(cost):,}  ", "", ""),
        (
            "",
            "whole",
            "",
            f"{cost.flash_bytes:,}",
            f"{cost.ram_bytes:,}  ",
            f"{cost.counted:,}",
            "",
        ),
    ]
    return rows


def table(cost: Cost) -> Iterator[str]:
    """The table, then time and energy on named boards."""
    titles = ("", "layer", "output", "flash B", "RAM B  ", "instructions", "")
    rows = [titles, *rows_of(cost)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    most = max(layer.instructions for layer in cost.layers)
    yield f"by layer, on an emulated {cost.core} (RAM of a layer: of the arena; ◂ most)"
    for place, row in enumerate(rows):
        cells = [
            text.ljust(width) if 1 <= column <= 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        bar = ""
        if 1 <= place <= len(cost.layers):
            bar = "█" * round(_BAR * cost.layers[place - 1].instructions / most)
        yield f"{'  '.join(cells)} {bar}".rstrip()
    yield "one inference, estimated from these instructions (ranges; their sources: cost.html):"
    given = cost.instructions, cost.instructions_m0, cost.flash_bytes, cost.ram_bytes
    for each in estimates(*given):
        yield f"  {each}"


def _other_ram(cost: Cost) -> int:
    return cost.ram_bytes - cost.arena_bytes - cost.buffer_bytes
