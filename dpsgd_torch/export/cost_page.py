"""cost.html: one self-contained page of what a model costs before it is flashed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from dpsgd_torch.export.cost import Cost
from dpsgd_torch.export.cost_picture import lines_of
from dpsgd_torch.export.cost_section import cost_section

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
    padding: 0 1rem; color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  pre { white-space: pre-wrap; color: var(--soft); }
</style>
</head>
<body class="board">
<h1>Flash, RAM and instructions, before flashing</h1>
@COST@
<pre>@PROVENANCE@</pre>
</body>
</html>
"""


def cost_page(cost: Cost, provenance: Mapping[str, str]) -> str:
    """The page, with the picture inside."""
    parts = {
        "@PROVENANCE@": escape(lines_of(provenance)),
        "@COST@": cost_section(cost, provenance),
    }
    page = _PAGE
    for place, text in parts.items():
        page = page.replace(place, text, 1)
    return page
