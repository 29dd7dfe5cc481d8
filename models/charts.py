"""Charts as inline SVG: no script, no font file, no external resource; they look the same on screen and on paper.

Colours are from Okabe and Ito's and Tol's sets, darkened where white paper asks for it; every candidate has a dash pattern
of its own too, so that no chart needs colour to be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

Point = tuple[float, float]

INK: Final = "#1f2937"
MUTED: Final = "#4b5563"
GRID: Final = "#e5e7eb"


@dataclass(frozen=True)
class Style:
    """How a candidate's line looks: colour, dash pattern (empty for solid) and width in px."""

    colour: str
    dash: str = ""
    width: float = 1.8


STYLES: Final[Mapping[str, Style]] = {
    "network": Style("#0060a0", width=2.8),
    "champion": Style("#c2410c", "10 3"),
    "lightgbm": Style("#a16207", "6 3"),
    "logistic": Style("#047857", "6 3 1.5 3"),
    "recency": Style("#9d3d8f", "2 3"),
    "prior": Style("#6b7280", "1 4"),
}
"""By candidate; charts are drawn in this order from the back."""

OTHER: Final = Style("#6b7280", "4 2")


@dataclass
class Chart:
    """A chart under construction. Data coordinates are mapped linearly onto the box inside the margins.

    Attributes:
        size: width and height in px.
        x_range, y_range: data at the edges of the box.
        margins: left, right, top, bottom in px.
    """

    size: tuple[int, int]
    x_range: Point
    y_range: Point
    margins: tuple[int, int, int, int] = (64, 24, 12, 44)
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        left, right, _, _ = self.margins
        return left + (value - self.x_range[0]) / (self.x_range[1] - self.x_range[0]) * (self.size[0] - left - right)

    def y(self, value: float) -> float:
        _, _, top, bottom = self.margins
        return (
            self.size[1]
            - bottom
            - (value - self.y_range[0]) / (self.y_range[1] - self.y_range[0]) * (self.size[1] - top - bottom)
        )

    def axes(
        self, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]], x_title: str, y_title: str
    ) -> None:
        """Gridlines at the ticks, their labels, and a title for each axis."""
        left, right, top, bottom = self.margins
        width, height = self.size
        for value, text in y_ticks:
            self.line([(self.x_range[0], value), (self.x_range[1], value)], Style(GRID, width=1))
            self.text(left - 7, self.y(value) + 4, text, anchor="end")
        for value, text in x_ticks:
            self.line([(value, self.y_range[0]), (value, self.y_range[1])], Style(GRID, width=1))
            self.text(self.x(value), height - bottom + 17, text)
        self.text((left + width - right) / 2, height - 6, x_title, colour=INK)
        if y_title:
            middle = (top + height - bottom) / 2
            turned = f'transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="{INK}"'
            self.parts.append(f"<text {turned}>{escape(y_title)}</text>")

    def line(self, points: Sequence[Point], style: Style) -> None:
        """A line through points in data coordinates."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{style.colour}" stroke-width="{style.width}"{dash} '
            'stroke-linejoin="round"/>'
        )

    def dot(self, x: float, y: float, colour: str, *, radius: float = 4.0, hollow: bool = False) -> None:
        """A point in data coordinates."""
        fill = f'fill="#fff" stroke="{colour}" stroke-width="2"' if hollow else f'fill="{colour}"'
        self.parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}" {fill}/>')

    def bar(self, x: Point, y: Point, fill: str) -> None:
        """A filled rectangle in data coordinates; ``fill`` is a colour or a pattern."""
        left, right = sorted(self.x(value) for value in x)
        top, bottom = sorted(self.y(value) for value in y)
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{fill}"/>'
        )

    def text(self, x: float, y: float, text: str, *, anchor: str = "middle", colour: str = MUTED, bold: bool = False) -> None:
        """Text at a place in px."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>')

    def svg(self, title: str, description: str) -> str:
        """The finished element; ``description`` tells those who cannot see it what it shows."""
        width, height = self.size
        return (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-size="12">'
            f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(self.parts)}</svg>"
        )


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers within [low, high], at most ``most``.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def percent_ticks(low: float = 0.0, high: float = 1.0, *, most: int = 6) -> list[tuple[float, str]]:
    """Round shares with their text.

    Example:
        >>> percent_ticks(0, 0.5, most=3)
        [(0.0, '0 %'), (0.25, '25 %'), (0.5, '50 %')]
    """
    return [(value, f"{value * 100:g} %") for value in ticks(low, high, most=most)]


def number_ticks(low: float, high: float, *, most: int = 6) -> list[tuple[float, str]]:
    """Round numbers with their text, thousands apart."""
    values = ticks(low, high, most=most)
    return [(value, f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:g}".replace("-", "−")) for value in values]


def style_of(name: str) -> Style:
    """The style of a candidate; one that the set does not know gets a neutral one."""
    return STYLES.get(name, OTHER)


def in_drawing_order(names: Iterable[str]) -> list[str]:
    """Candidates from the back to the front: the network comes last and covers the others."""
    order = [*STYLES]
    return sorted(names, key=lambda name: -order.index(name) if name in order else -len(order))


def sample(name: str) -> str:
    """A short piece of a candidate's line, for legends."""
    style = style_of(name)
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return (
        '<svg viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<line x1="1" y1="5" x2="33" y2="5" stroke="{style.colour}" stroke-width="{style.width}"{dash}/></svg>'
    )
