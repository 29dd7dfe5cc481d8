"""The charts of an evaluation, each from its part of the file alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from models.charts import INK, MUTED, Chart, Style, in_drawing_order, number_ticks, percent_ticks, style_of, ticks
from models.evaluation import Evaluation

HALF: Final = (440, 300)
DIAGONAL: Final = Style("#9ca3af", "3 3", 1)
ZERO: Final = Style("#6b7280", width=1.2)
BETTER: Final = "#0060a0"
WORSE: Final = "#c2410c"
MATURED: Final = "#5b8db8"
MATTERS: Final = "#9cc3df"
BAR_WIDTH: Final = 0.8
MOST_BARS: Final = 15

HATCHED: Final = (
    '<defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#fff7ed"/><line x1="0" y1="0" x2="0" y2="6" stroke="#c2410c" stroke-width="3"/>'
    "</pattern></defs>"
)


def draw_roc(curves: Mapping[str, Mapping[str, Sequence[float]]], candidates: Evaluation) -> str:
    """True positives against false positives at every threshold."""
    chart = Chart(HALF, (0, 1), (0, 1))
    chart.axes(percent_ticks(), percent_ticks(), "negatives scored as high", "positives found")
    chart.line([(0, 0), (1, 1)], DIAGONAL)
    for name in in_drawing_order(curves):
        chart.line(list(zip(curves[name]["fpr"], curves[name]["tpr"], strict=True)), style_of(name))
    areas = ", ".join(f"{name} {candidates[name]['auc']['value']:.3f}" for name in curves)
    return chart.svg("ROC curves", f"True positive rate against false positive rate. Areas under the curves: {areas}.")


def draw_lift(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """How many times more positives than by chance among the rows with the highest scores."""
    highest = max(max(curve["lift"], default=1.0) for curve in curves.values())
    chart = Chart(HALF, (0, 1), (0, math.ceil(highest * 1.05 * 2) / 2))
    chart.axes(percent_ticks(), number_ticks(*chart.y_range), "rows taken, highest scores first", "lift")
    chart.line([(0, 1), (1, 1)], DIAGONAL)
    for name in in_drawing_order(curves):
        chart.line(list(zip(curves[name]["share"], curves[name]["lift"], strict=True)), style_of(name))
    at_tenth = ", ".join(f"{name} {_at(curve['share'], curve['lift'], 0.1):.2f}" for name, curve in curves.items())
    return chart.svg("Lift curves", f"Share of positives among the top rows over that of all. At 10 % of the rows: {at_tenth}.")


def draw_calibration(table: Sequence[Evaluation]) -> str:
    """Share of positives against mean score in ten bins, with the interval of each share."""
    high = max(max(entry["high"], entry["mean_score"]) for entry in table)
    top = min(1.0, max(ticks(0, high * 1.12)[-1], high * 1.04))
    chart = Chart(HALF, (0, top), (0, top))
    chart.axes(percent_ticks(0, top), percent_ticks(0, top), "mean score", "share of positives")
    chart.line([(0, 0), (top, top)], DIAGONAL)
    for entry in table:
        chart.line(
            [(entry["mean_score"], entry["low"]), (entry["mean_score"], min(entry["high"], top))], Style(BETTER, width=1.6)
        )
    chart.line([(entry["mean_score"], entry["share_positive"]) for entry in table], Style(BETTER, "2 3", 1))
    for entry in table:
        chart.dot(entry["mean_score"], entry["share_positive"], BETTER)
    pairs = "; ".join(f"{entry['mean_score']:.3f}: {entry['share_positive']:.3f}" for entry in table)
    return chart.svg(
        "Calibration of the network", f"Mean score and share of positives by bin: {pairs}. The diagonal is perfect."
    )


def draw_gains(gains: Mapping[str, Evaluation], metric: str, title: str) -> str:
    """The network's gain over each other candidate as a point with its interval; right of zero is better."""
    rows = [(name, figures[metric]) for name, figures in gains.items()]
    low = min([0.0, *(figure["low"] for _, figure in rows)])
    high = max([0.0, *(figure["high"] for _, figure in rows)])
    pad = (high - low) * 0.06 or 0.01
    chart = _rows_chart(len(rows), (low - pad, high + pad), f"the network's gain in {title}: right of zero is better")
    for place, (name, figure) in enumerate(rows):
        _draw_row(chart, place, name, figure)
    listed = ", ".join(f"{name} {figure['value']:+.4f}" for name, figure in rows)
    return chart.svg(f"Gain in {title} over each candidate", f"With 95 % intervals; positive is better: {listed}.")


def draw_importance(groups: Sequence[Evaluation], *, metric: str = "log_loss", title: str = "log loss") -> str:
    """The rise of a loss when a signal is shuffled, the greatest first."""
    shown = list(groups[:MOST_BARS])
    low = min([0.0, *(entry[metric]["low"] for entry in shown)])
    high = max(entry[metric]["high"] for entry in shown)
    chart = _rows_chart(len(shown), (low - 0.02 * (high - low), high + 0.04 * (high - low)), f"rise of {title} when shuffled")
    for place, entry in enumerate(shown):
        figure = entry[metric]
        chart.bar((0, figure["value"]), (place + 0.22, place + 0.78), MATTERS)
        _draw_row(chart, place, entry["group"].replace("_", " "), figure, plain=True)
    listed = ", ".join(f"{entry['group']} {entry[metric]['value']:.4f}" for entry in shown)
    return chart.svg("Importance by signal", f"Rise of {title} when the signal's columns are shuffled: {listed}.")


def draw_periods(periods: Sequence[Evaluation]) -> str:
    """Rows by date, matured below, censored above."""
    highest = max(entry["rows"] for entry in periods)
    chart = Chart(HALF, (0, len(periods)), (0, highest * 1.08))
    every = max(1, math.ceil(len(periods) / 5))
    labels = [(place + 0.5, _show_day(entry["from"])) for place, entry in enumerate(periods) if place % every == 0]
    chart.axes([], number_ticks(*chart.y_range, most=5), "date of the rows", "rows")
    chart.parts.append(HATCHED)
    for place, entry in enumerate(periods):
        span = (place + (1 - BAR_WIDTH) / 2, place + (1 + BAR_WIDTH) / 2)
        chart.bar(span, (0, entry["matured"]), MATURED)
        if entry["censored"]:
            chart.bar(span, (entry["matured"], entry["rows"]), "url(#hatched)")
    for x, text in labels:
        chart.text(chart.x(x), HALF[1] - chart.margins[3] + 17, text)
    total, censored = (sum(entry[name] for entry in periods) for name in ("rows", "censored"))
    return chart.svg("Rows by date", f"{len(periods)} dates with {total:,} rows, of which {censored:,} had not matured.")


def draw_delays(delays: Evaluation) -> str:
    """Which share of outcomes had happened, and was known, how long after the row."""
    chart = Chart(HALF, (0, delays["days"][-1]), (0, 1))
    chart.axes(number_ticks(*chart.x_range), percent_ticks(), "days after the row", "share of outcomes")
    for name, style in (("happened", Style("#9d3d8f", "5 3", 2)), ("known", Style(BETTER, width=2.6))):
        chart.line(list(zip(delays["days"], delays[name], strict=True)), style)
    half = next((day for day, share in zip(delays["days"], delays["known"], strict=True) if share >= 0.5), delays["days"][-1])
    return chart.svg("Delay of outcomes", f"Half of {delays['outcomes']:,} outcomes were known {half:g} days after the row.")


def _rows_chart(rows: int, x_range: tuple[float, float], x_title: str) -> Chart:
    """A chart of named rows from top to bottom, with a line at zero."""
    chart = Chart((900, 46 + 26 * rows + 8), x_range, (rows, 0), margins=(190, 190, 8, 46))
    chart.axes(number_ticks(*x_range, most=7), [], x_title, "")
    chart.line([(0, 0), (0, rows)], ZERO)
    return chart


def _draw_row(chart: Chart, place: int, name: str, figure: Mapping[str, Any], *, plain: bool = False) -> None:
    """A name, its interval as a line, and the figures; unless ``plain``, the mark tells on which side of zero it lies."""
    left, right, _, _ = chart.margins
    middle = place + 0.5
    within_noise = not plain and figure["low"] <= 0 <= figure["high"]
    colour = INK if plain else MUTED if within_noise else BETTER if figure["low"] > 0 else WORSE
    chart.text(left - 10, chart.y(middle) + 4, name, anchor="end", colour=INK)
    chart.line([(figure["low"], middle), (figure["high"], middle)], Style(colour, width=2))
    chart.dot(figure["value"], middle, colour, radius=2.5 if plain else 4.5, hollow=within_noise)
    interval = f"{figure['value']:+.4f} [{figure['low']:+.4f}, {figure['high']:+.4f}]".replace("-", "−")
    chart.text(chart.size[0] - right + 12, chart.y(middle) + 4, interval, anchor="start")


def _at(along: Sequence[float], values: Sequence[float], place: float) -> float:
    """The value at the first point that is not before a place."""
    return next((value for where, value in zip(along, values, strict=True) if where >= place), values[-1])


def _show_day(day: str) -> str:
    return date.fromisoformat(day).strftime("%d %b %y").lstrip("0")
