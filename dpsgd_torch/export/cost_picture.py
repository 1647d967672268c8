"""A model's memory over its steps and its instructions by layer, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from dpsgd_torch.export.cost import Cost

WIDTH, LEFT, RIGHT = 960, 64, 16
_MEMORY, _GAP, _BAR = 300, 26, 30
_COLOURS = ("#3f6aa0", "#b85c1e", "#2f7d4f", "#9a4788", "#75652a", "#1f7a80", "#b03c3b", "#5c5ca0")
"""White words on any of them have a contrast of 4.5 or more."""
STYLE = """\
.cost { font: 12px system-ui, sans-serif; color-scheme: light dark; }
.cost text { fill: #1c1c1c; } .cost .soft { fill: #5a5a5a; } .cost .edge { stroke: #bbb; }
.cost .paper { fill: #fff; } .cost .peak { fill: #f3e3c8; } .cost .top { stroke: #b5651d; }
.cost .block { stroke: #fff; } .cost .on { fill: #fff; } .cost .held { fill: #1c1c1c; }
.cost .under { fill: none; stroke: #1c1c1c; stroke-opacity: .6; stroke-dasharray: 2 3;
  pointer-events: none; }
@media (prefers-color-scheme: dark) {
  .cost text { fill: #e4e4e4; } .cost .soft { fill: #aaa; } .cost .edge { stroke: #555; }
  .cost .paper { fill: #191919; } .cost .peak { fill: #3d3020; } .cost .top { stroke: #e0a060; }
  .cost .block { stroke: #191919; } .cost .on, .cost .held { fill: #fff; }
  .cost .under { stroke: #fff; }
}"""


def cost_svg(cost: Cost, provenance: Mapping[str, str]) -> str:
    """Buffer × time above, instructions below; ``provenance`` goes into the metadata."""
    colours = colours_of(cost)
    memory, at = _memory(cost, colours, 44)
    instructions, end = _instructions(cost, colours, at + 40)
    legend, height = _legend(cost, colours, end + 16)
    peak = cost.layers[cost.peak]
    title = (
        f"{len(cost.layers)} layers: an arena of {cost.arena_bytes:,} bytes, "
        f"{cost.counted:,} instructions"
    )
    told = (
        "Above, each tensor as a bar over the steps that it is held in and the bytes that it lies "
        f"in; most are in use in step {cost.peak}, {peak.name}: {peak.ram_bytes:,}. A bar covers "
        "another where a layer writes over what it has read. Below, the instructions of each "
        "layer, as wide as its share."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="cost" viewBox="0 0 {WIDTH} {height}" '
            'role="img" aria-labelledby="cost-title cost-told">',
            f'<title id="cost-title">{escape(title)}</title>',
            f'<desc id="cost-told">{escape(told)}</desc>',
            f"<metadata>{escape(lines_of(provenance))}</metadata>",
            f"<style>{STYLE}</style>",
            '<defs><pattern id="scratch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="6" height="6" fill="#8884"/>'
            '<line x1="0" y1="0" x2="0" y2="6" stroke="#888" stroke-width="3"/></pattern></defs>',
            f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
            *memory,
            *instructions,
            *legend,
            "</svg>",
        ]
    )


def lines_of(provenance: Mapping[str, str]) -> str:
    """key: text, a line each."""
    return "\n".join(f"{key}: {value}" for key, value in provenance.items())


def colours_of(cost: Cost) -> dict[str, str]:
    """Kind of layer → colour, the dearest kind first."""
    total: dict[str, int] = {}
    for layer in cost.layers:
        total[layer.kind] = total.get(layer.kind, 0) + layer.instructions
    kinds = sorted(total, key=lambda kind: -total[kind])
    return {kind: _COLOURS[place % len(_COLOURS)] for place, kind in enumerate(kinds)}


def _memory(cost: Cost, colours: dict[str, str], top: int) -> tuple[list[str], int]:
    steps, size = len(cost.layers), max(1, cost.arena_bytes)
    column = (WIDTH - LEFT - RIGHT) / steps
    base = top + _MEMORY
    peak = cost.layers[cost.peak]
    most = f"most is in use in step {cost.peak}, {peak.name}: {peak.ram_bytes:,} bytes"
    parts = [
        _text(LEFT, 18, "RAM: the arena, byte by byte, over the steps", "font-weight='600'"),
        _text(LEFT, 34, most, 'class="soft"'),
    ]  # fmt: skip
    outlines = []
    for block in cost.blocks:
        x, width = LEFT + block.made * column, (block.last - block.made + 1) * column
        high = _MEMORY * block.size / size
        y = base - _MEMORY * block.offset / size - high
        fill = "url(#scratch)" if block.scratch else colours[cost.layers[block.made].kind]
        what = f"{block.name}: {block.size:,} bytes from {block.offset:,}, steps {block.made}"
        what += f" to {block.last}" if block.last > block.made else ""
        where = (
            f'x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{max(high, 0.8):.1f}"'
        )
        parts.append(f'<rect class="paper" {where}/>')  # what is written over is covered
        parts.append(
            f'<rect class="block" {where} fill="{fill}" fill-opacity=".78">'
            f"<title>{escape(what)}</title></rect>"
        )
        label = f"{block.size:,}"
        if not block.scratch:
            outlines.append(f'<rect class="under" {where}/>')
            if high >= 14 and width >= 7 * len(label) + 6:
                parts.append(_text(x + 5, y + 13, label, 'class="held"'))
    parts += outlines
    parts.append(
        f'<rect class="top" fill="none" stroke-width="2" x="{LEFT + cost.peak * column:.1f}" '
        f'y="{top}" width="{column:.1f}" height="{_MEMORY}"/>'
    )
    parts.append(f'<line class="top" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top}" y2="{top}" '
                 'stroke-dasharray="5 3"/>')  # fmt: skip
    parts += [
        _text(LEFT - 6, base - _MEMORY * part + 4, f"{size * part:,.0f}", 'text-anchor="end"')
        for part in (0, 0.25, 0.5, 0.75, 1)
    ]
    every = max(1, -(-steps // 32))
    parts += [
        _text(
            LEFT + (step + 0.5) * column, base + 15, str(step), 'text-anchor="middle" class="soft"'
        )
        for step in range(0, steps, every)
    ]
    parts.append(f'<line class="edge" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return parts, base + 15


def _instructions(cost: Cost, colours: dict[str, str], top: int) -> tuple[list[str], int]:
    wide = WIDTH - LEFT - RIGHT
    parts = [
        _text(LEFT, top, "Instructions of one inference, layer after layer", "font-weight='600'")
    ]
    y = top + 10
    parts.append(
        f'<rect x="{LEFT}" y="{y}" width="{wide}" height="{_BAR}" class="peak"/>'
        + _text(LEFT + 6, y + 19, f"whole: {cost.counted:,}", "")
    )
    y, x = y + _BAR + 2, float(LEFT)
    for index, layer in enumerate(cost.layers):
        width = wide * layer.instructions / max(1, cost.counted)
        share = f"{layer.instructions / max(1, cost.counted):.1%}"
        what = f"step {index}, {layer.name}: {layer.instructions:,} ({share})"
        parts.append(
            f'<rect class="block" x="{x:.2f}" y="{y}" width="{max(width, 0.2):.2f}" '
            f'height="{_BAR + 16}" fill="{colours[layer.kind]}">'
            f"<title>{escape(what)}</title></rect>"
        )
        for line, label in enumerate((str(index), share)):
            if width >= 7 * len(label) + 4:
                parts.append(_text(x + 3, y + 16 + 17 * line, label, 'class="on"'))
        x += width
    return parts, y + _BAR + 16


def _legend(cost: Cost, colours: dict[str, str], top: int) -> tuple[Iterable[str], int]:
    parts, x, y = [], LEFT, top
    entries = [(colour, kind, _share(cost, kind)) for kind, colour in colours.items()]
    if any(block.scratch for block in cost.blocks):
        entries.append(("url(#scratch)", "scratch", ""))
    for colour, kind, share in entries:
        label = f"{kind} {share}".strip()
        if x + 24 + 7 * len(label) > WIDTH - RIGHT:
            x, y = LEFT, y + _GAP
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 17, y + 10, label, ""))
        x += 34 + 7 * len(label)
    return parts, y + 26


def _share(cost: Cost, kind: str) -> str:
    count = sum(layer.instructions for layer in cost.layers if layer.kind == kind)
    share = count / max(1, cost.counted)
    return f"{share:.0%}" if share >= 0.005 else "< 1%"


def _text(x: float, y: float, words: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'
