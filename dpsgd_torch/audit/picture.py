"""Receiver operating characteristic in log scale, as SVG: an attack's points, a certified curve.

A point's bars end where its limits put it: left of the false positives that are allowed for, above
the true ones. A point whose corner lies above the curve contradicts the guarantee, and is red.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from accountant.auditing.operating import Certified, OperatingPoint

_WIDTH, _HEIGHT = 520, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 14, 50
_CERTIFIED, _COIN, _FAULT = "#1f5fa8", "#777777", "#a02c2c"
_ATTACKS = ("#b5651d", "#3b7a57", "#6a4c93", "#444444")
_PER_DECADE = 12
_DEEPEST = -6  # decades that are drawn at most


def roc(
    curve: Certified | None,
    points: Sequence[OperatingPoint],
    *,
    decades: int | None = None,
    certified: str = "certified: no attacker does better",
) -> str:
    """True-positive against false-positive rate, both in log scale, as one ``<svg>`` element.

    Args:
        curve: what is certified, a ``TradeOff`` or a ``Claim``; None draws the coin alone.
        points: of one attack or several, told apart by their names.
        decades: how far down the axes go; None fits the points, 2 at least.
        certified: what the legend calls the curve.

    >>> from accountant.auditing.operating import Claim, operating_points
    >>> picture = roc(Claim(1.0, 1e-5), operating_points(range(32), range(8, 40), name="loss"))
    >>> picture.startswith("<svg") and "loss" in picture and "NOT" not in picture
    True
    """
    low = -decades if decades else _reach(points)
    names = sorted({point.name or "attack" for point in points})
    colors = {name: _ATTACKS[i % len(_ATTACKS)] for i, name in enumerate(names)}
    faults = [point for point in points if curve is not None and point.above(curve)]
    body = [*_axes(low), _line(low, lambda rate: rate, _COIN, "4 4")]
    if curve is not None:
        body.append(_line(low, curve.true_positives, _CERTIFIED, ""))
    for point in points:
        color = _FAULT if point in faults else colors[point.name or "attack"]
        body += _mark(point, low, color)
    legend = [] if curve is None else [(_CERTIFIED, certified)]
    legend += [(_COIN, "what a coin gives"), *((colors[name], name) for name in names)]
    if faults:
        legend.append((_FAULT, f"NOT below the certified curve: {len(faults)}"))
    body += _legend(legend)
    told = (
        f"{len(points)} operating points, {len(faults)} above the certified curve beyond chance"
        if curve is not None
        else f"{len(points)} operating points"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(told)}</title>'
        + "".join(body)
        + "</svg>"
    )


def _reach(points: Sequence[OperatingPoint]) -> int:
    rates = [p.false_positives for p in points] + [p.false_positives_most for p in points]
    least = min((rate for rate in rates if rate > 0), default=0.01)
    return max(_DEEPEST, min(-2, math.floor(math.log10(least))))


def _x(rate: float, low: int) -> float:
    share = 1 - max(math.log10(rate) if rate > 0 else low, low) / low
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(rate: float, low: int) -> float:
    share = max(math.log10(rate) if rate > 0 else low, low) / low
    return round(_TOP + share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _axes(low: int) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for decade in range(low, 1):
        x, y = _x(10.0**decade, low), _y(10.0**decade, low)
        name = f"{10.0**decade * 100:g} %"
        yield f'<path d="M{x} {_TOP}V{bottom}M{_LEFT} {y}H{right}" stroke="#ddd" fill="none"/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{name}</text>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{name}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">false positives</text>'
    height = (_TOP + bottom) / 2
    yield (
        f'<text transform="translate(14 {height})rotate(-90)" text-anchor="middle">'
        "true positives</text>"
    )


def _line(low: int, height: Callable[[float], float], color: str, dashes: str) -> str:
    rates = [10 ** (i / _PER_DECADE) for i in range(low * _PER_DECADE, 0)]
    rates.append(1 - 1e-9)
    path = "L".join(f"{_x(rate, low)} {_y(height(rate), low)}" for rate in rates)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.8"{dashed}/>'


def _mark(point: OperatingPoint, low: int, color: str) -> Iterator[str]:
    x, y = _x(point.false_positives, low), _y(point.true_positives, low)
    most = _x(point.false_positives_most, low)
    least = _y(point.true_positives_least, low)
    told = (
        f"{point.name or 'attack'}: true positives {point.true_positives:.4g}, at least "
        f"{point.true_positives_least:.4g}; false positives {point.false_positives:.4g}, at most "
        f"{point.false_positives_most:.4g}"
    )
    yield (
        f'<g stroke="{color}" fill="{color}"><title>{escape(told)}</title>'
        f'<path d="M{x} {y}H{most}M{x} {y}V{least}" stroke-width="1.2"/>'
        f'<circle cx="{x}" cy="{y}" r="3.5" stroke="none"/></g>'
    )


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM - 10 - 16 * (len(entries) - 1)
    for row, (color, name) in enumerate(entries):
        y = bottom + 16 * row
        end = _WIDTH - _RIGHT - 12
        yield f'<rect x="{end}" y="{y - 8}" width="10" height="10" fill="{color}"/>'
        yield f'<text x="{end - 6}" y="{y + 1}" text-anchor="end">{escape(name)}</text>'
