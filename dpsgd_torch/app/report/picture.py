"""A figure of the page: SVG, its caption, and what it shows for whoever cannot see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Picture:
    """A title, an ``<svg>`` element, and an alternative text; ``note`` stands below it."""

    title: str
    svg: str
    alt: str
    note: str = ""

    @property
    def html(self) -> str:
        """The SVG as an image with its alternative text.

        >>> Picture("ε", "<svg><g/></svg>", "ε < 3").html
        '<svg role="img" aria-label="ε &lt; 3"><g/></svg>'
        """
        told = f'<svg role="img" aria-label="{escape(self.alt)}"'
        return self.svg.replace("<svg", told, 1)


def described(pictures: Mapping[str, str]) -> list[Picture]:
    """Title → SVG as pictures whose titles say what is drawn."""
    return [Picture(title, svg, f"Plot: {title}") for title, svg in pictures.items()]
