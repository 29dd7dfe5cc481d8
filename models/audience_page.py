"""Audiences as one HTML page without scripts or outside resources: sizes with lift, reasons, and what audiences share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.audience_figures import CampaignFigures
from models.charts import GRID, INK, MUTED

BAR: Final = "#0060a0"
WIDTH: Final = 860
LABEL: Final = 190
ROW: Final = 30
CELL: Final = 54
MOST_SHOWN: Final = 30
"""Campaigns in the matrix of overlaps; more could not be read."""


def render_page(title: str, figures: Sequence[CampaignFigures], overlap: tuple[Sequence[str], NDArray[np.float64]]) -> str:
    """The page."""
    rows = "".join(map(_row, figures))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>body{{font:15px/1.45 system-ui,"
        f"sans-serif;color:{INK};max-width:60em;margin:2em auto;padding:0 1em}}table{{border-collapse:collapse;width:100%}}"
        f"th,td{{text-align:right;padding:.3em .6em;border-bottom:1px solid {GRID}}}th:first-child,.why{{text-align:left}}"
        f"th:first-child{{white-space:nowrap}}"
        f".why{{color:{MUTED};font-size:13px}}svg{{max-width:100%;height:auto}}</style><h1>{escape(title)}</h1>"
        f"<h2>Size, and lift over sending to anybody</h2>{draw_sizes(figures)}<table><tr><th>campaign<th>members<th>of users"
        f"<th>mean score<th>of all<th>lift<th>take-ups expected<th class=why>out, because</tr>{rows}</table>"
        f"<p>Lift is the members' mean score over that of all users: an estimate by the model. What a campaign causes can "
        f"only be told from a group that did not get it.</p>"
        f"<h2>Share of the row's members who are in the column's audience, too</h2>{draw_overlap(*overlap)}</html>\n"
    )


def _row(entry: CampaignFigures) -> str:
    why = ", ".join(f"{reason} {count:,}" for reason, count in entry.reasons.items() if count)
    means = f"<td>{entry.mean_score:.3f}</td><td>{entry.population_mean:.3f}</td><td>{entry.lift:.1f}</td>"
    return (
        f"<tr><th>{escape(entry.campaign)}</th><td>{entry.members:,}</td><td>{entry.share:.1%}</td>{means}"
        f"<td>{entry.expected:,.0f}</td><td class=why>{escape(why)}</td></tr>"
    )


def draw_sizes(figures: Sequence[CampaignFigures]) -> str:
    """Bars of members, the lift beside each, as SVG."""
    most = max([1, *(entry.members for entry in figures)])
    parts = []
    for number, entry in enumerate(figures):
        y, length = number * ROW + 6, (WIDTH - LABEL - 200) * entry.members / most
        parts.append(_text(LABEL - 8, y + 15, entry.campaign, "end"))
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{max(length, 1):.1f}" height="{ROW - 10}" fill="{BAR}"/>')
        parts.append(_text(LABEL + length + 8, y + 15, f"{entry.members:,} members, lift {entry.lift:.1f}", "start"))
    return _svg(WIDTH, len(figures) * ROW + 12, "members of each audience", parts)


def draw_overlap(names: Sequence[str], shares: NDArray[np.float64]) -> str:
    """A matrix of shares as SVG, darker for more; each cell has its number."""
    shown = list(names)[:MOST_SHOWN]
    parts = []
    for row, name in enumerate(shown):
        parts.append(_text(LABEL - 8, 28 + row * CELL / 2 + 18, name, "end"))
        parts.append(_text(LABEL + (row + 0.5) * CELL, 20, str(row + 1), "middle"))
        parts.append(_text(LABEL + len(shown) * CELL + 8, 28 + row * CELL / 2 + 18, str(row + 1), "start"))
        for column in range(len(shown)):
            share = float(shares[row, column])
            x, y = LABEL + column * CELL, 28 + row * CELL / 2
            box = f'x="{x}" y="{y}" width="{CELL - 2}" height="{CELL / 2 - 2}"'
            parts.append(f'<rect {box} fill="{BAR}" fill-opacity="{0.06 + 0.94 * share:.2f}"/>')
            ink = "#ffffff" if share > 0.5 else INK
            parts.append(_text(x + CELL / 2 - 1, y + 18, f"{share:.0%}", "middle", ink))
    return _svg(LABEL + len(shown) * CELL + 40, 28 + len(shown) * CELL / 2 + 6, "overlap of audiences", parts)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="13" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, fill: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
