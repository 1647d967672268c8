"""What a model costs before it is flashed, as a part of a page: picture, table, named boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dpsgd_torch.export.board_times import estimates, sources
from dpsgd_torch.export.cost import Cost
from dpsgd_torch.export.cost_picture import cost_svg
from dpsgd_torch.export.cost_table import rows_of

STYLE = """\
<style>
  .board .wide { overflow-x: auto; overflow-wrap: normal; }
  .board .wide svg { display: block; width: 100%; min-width: 44rem; height: auto; }
  .board li, .board summary { color: var(--soft); }
  .board table { border-collapse: collapse; }
  .board :is(th, td) { padding: .2rem .7rem; text-align: right; white-space: nowrap;
    border-bottom: 1px solid var(--line); }
  .board :is(th, td).name { text-align: left; white-space: normal; min-width: 4.5rem; }
  @media (max-width: 40rem) { .board :is(th, td) { padding: .2rem .3rem; font-size: .9rem; } }
</style>"""
"""For a page whose colours are ``--soft`` and ``--line``."""

_LEFT = ' class="name"'


def cost_section(cost: Cost, provenance: Mapping[str, str], level: int = 2) -> str:
    """HTML; ``level``: of its headings."""
    lead = (
        f"The whole image on an emulated {cost.core}: {cost.flash_bytes:,} bytes of flash, "
        f"{cost.ram_bytes:,} of RAM with stack and buffers, {cost.instructions:,} instructions an "
        "inference."
    )
    titles = ("", "layer", "output", "flash B", "RAM B", "instructions", "share")
    given = cost.instructions, cost.instructions_m0, cost.flash_bytes, cost.ram_bytes
    boards = [each.cells() for each in estimates(*given)]
    lines = [
        STYLE,
        f"<p>{escape(lead)}</p>",
        wide("memory over the steps, and instructions by layer", cost_svg(cost, provenance)),
        "<p>A bar covers another, whose outline is dashed, where a layer writes over what it has "
        "read.</p>",
        f"<h{level}>Layer by layer</h{level}>",
        wide("layers", _table([titles, *rows_of(cost)], names=(1, 2))),
        "<p>RAM of a layer is what of the arena is in use as it runs (◂: most); its constants are "
        "its flash. Instructions are counted for one inference of zeros and add up to the whole."
        "</p>",
        f"<h{level}>Time and energy, estimated</h{level}>",
        wide("boards", _table([("board", "milliseconds", "µJ", ""), *boards], names=(0,))),
        "<p>Not measured on a board. Each range goes from the lower to the upper end of what the "
        "constants allow, rounded outward; the chip alone, without sensors, radio and regulators."
        "</p>",
        "<details><summary>Where the constants are from</summary><ul>"
        + "".join(f"<li>{escape(line)}</li>" for line in sources())
        + "</ul></details>",
    ]
    return "\n".join(lines)


def wide(what: str, inside: str) -> str:
    """What scrolls by itself where a page is narrow, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{what}">{inside}</div>'


def _table(rows: Sequence[Sequence[str]], names: Sequence[int]) -> str:
    """``names``: columns of words, which stand at the left."""
    told = []
    for place, row in enumerate(rows):
        opened, closed = ("<td", "</td>") if place else ('<th scope="col"', "</th>")
        cells = (
            f"{opened}{_LEFT if column in names else ''}>{escape(text.strip())}{closed}"
            for column, text in enumerate(row)
        )
        told.append(f"<tr>{''.join(cells)}</tr>")
    return "<table>" + "\n".join(told) + "</table>"
