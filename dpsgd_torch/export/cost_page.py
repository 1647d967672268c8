"""cost.html: one self-contained page of what a model costs before it is flashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dpsgd_torch.export.board_times import estimates, sources
from dpsgd_torch.export.cost import Cost
from dpsgd_torch.export.cost_picture import cost_svg, lines_of
from dpsgd_torch.export.cost_table import rows_of

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flash, RAM and instructions</title>
<style>
  :root { color-scheme: light dark;
    --paper: #fff; --ink: #1c1c1c; --soft: #555; --line: #e4e4e4; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #191919; --ink: #e4e4e4; --soft: #aaa; --line: #3a3a3a; }
  }
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem;
    padding: 0 1rem; color: var(--ink); background: var(--paper); }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  p, li { color: var(--soft); }
  .wide { overflow-x: auto; }
  .wide svg { display: block; width: 100%; min-width: 44rem; height: auto; }
  pre { white-space: pre-wrap; color: var(--soft); }
  table { border-collapse: collapse; }
  th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
    white-space: nowrap; }
  .layers :is(th, td):is(:nth-child(2), :nth-child(3)), .boards :is(th, td):first-child {
    text-align: left; }
</style>
</head>
<body>
<h1>Flash, RAM and instructions, before flashing</h1>
<p>@LEAD@</p>
<div class="wide">@PICTURE@</div>
<h2>Layer by layer</h2>
<div class="wide"><table class="layers">@LAYERS@</table></div>
<p>RAM of a layer is what of the arena is in use as it runs (◂: most); its constants are its
flash. Instructions are counted for one inference of zeros and add up to the whole.</p>
<h2>Time and energy, estimated</h2>
<div class="wide"><table class="boards">@BOARDS@</table></div>
<p>Not measured on a board. Each range goes from the lower to the upper end of what these figures
allow; the chip alone, without sensors, radio and regulators.</p>
<ul>@SOURCES@</ul>
<pre>@PROVENANCE@</pre>
</body>
</html>
"""


def cost_page(cost: Cost, provenance: Mapping[str, str]) -> str:
    """The page, with the picture inside."""
    lead = (
        f"The whole image on an emulated {cost.core}: {cost.flash_bytes:,} bytes of flash, "
        f"{cost.ram_bytes:,} of RAM with stack and buffers, {cost.instructions:,} instructions an "
        "inference."
    )
    titles = ("", "layer", "output", "flash B", "RAM B", "instructions", "share")
    given = cost.instructions, cost.instructions_m0, cost.flash_bytes, cost.ram_bytes
    boards = [each.cells() for each in estimates(*given)]
    parts = {
        "@LEAD@": escape(lead),
        "@PICTURE@": cost_svg(cost, provenance),
        "@LAYERS@": _rows([titles, *rows_of(cost)]),
        "@BOARDS@": _rows([("board", "milliseconds", "µJ", ""), *boards]),
        "@SOURCES@": "".join(f"<li>{escape(line)}</li>" for line in sources()),
        "@PROVENANCE@": escape(lines_of(provenance)),
    }
    page = _PAGE
    for place, text in parts.items():
        page = page.replace(place, text, 1)
    return page


def _rows(rows: Sequence[Sequence[str]]) -> str:
    told = []
    for place, row in enumerate(rows):
        cell = "td" if place else "th"
        told.append("<tr>" + "".join(f"<{cell}>{escape(each)}</{cell}>" for each in row) + "</tr>")
    return "\n".join(told)
