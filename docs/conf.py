"""Sphinx's settings: `make docs` builds the site into build/site, and a warning is an error."""

import json
import re
from pathlib import Path

from dpsgd_torch.version import __version__

project = "dpsgd_torch"
author = "the authors of dpsgd_torch"
copyright = "2026, the authors, under Apache-2.0"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.imgmath", "sphinx.ext.napoleon"]
exclude_patterns = ["**/.ipynb_checkpoints"]

# Pages are read from a folder, without a network: no fonts, scripts or formulas from elsewhere.
html_theme = "furo"
html_title = f"dpsgd_torch {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_search_summary = False  # it is fetched, and files cannot be
html_show_sourcelink = html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db5f0", "color-brand-content": "#7db5f0"},
}
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
html_math_renderer = "imgmath"  # formulas are written in Unicode, and MathJax is fetched

myst_heading_anchors = 3
nb_execution_mode = "off"  # build/notebooks holds them with their outputs, once they were run

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and units, which types do not
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False

_SMALL = (
    "*Shown as it runs in the tests: in seconds, on few and small images or rows, so its figures "
    "are of little worth; `make notebooks` runs it in full.*"
)
_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_LONE_STAR = re.compile(r"(?<![\w*\s])\*(?=\w)|(?<=\s)(?<!^)\*(?=\w)(?![^*]*\w\*)")


def as_written(app, what, name, obj, options, lines):
    """Let signs of mathematics in a docstring stand for themselves: (n, *shape), |a||b|."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = _CODE.split(line)
        parts[::2] = [_LONE_STAR.sub(r"\\*", text).replace("|", r"\|") for text in parts[::2]]
        lines[number] = "".join(parts)


def with_outputs(app, page, source):
    """A notebook as it was last run; bare where it was not."""
    run = Path(app.confdir).parent / "build" / f"{page}.ipynb"
    if not page.startswith("notebooks/") or not run.exists():
        return
    notebook = json.loads(run.read_text())
    if notebook["metadata"].get("size") == "small":
        said = {"cell_type": "markdown", "id": "size", "metadata": {}, "source": _SMALL}
        notebook["cells"].insert(1, said)
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", with_outputs)
    app.connect("autodoc-process-docstring", as_written, priority=900)  # after napoleon
