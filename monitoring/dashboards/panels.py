"""Panels of a Grafana dashboard as plain objects of its JSON model (schema version 39, Grafana 10.4 and later).

See https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
"""The data source that the dashboard's variable ``source`` names."""
LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
NEWEST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A PromQL expression and how its series are called: ``{{label}}`` stands for a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        kind: Grafana's panel type: timeseries, stat, state-timeline, bargauge, table.
        title, text: what it shows, and what a reader should know about it.
        queries: what it draws.
        unit: Grafana's name of the unit: reqps, s, percentunit, percent, short.
        width: of 24 columns.
        options: of its kind.
        steps: (from, colour) pairs, where a value has a colour; the first one's ``from`` is None.
        texts: by value, where values stand for words.
        most: upper end of the axis; None leaves it to Grafana.
    """

    kind: str
    title: str
    text: str
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 12
    height: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[tuple[float | None, str]] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values of ``label`` that ``metric`` has; all of them where none is chosen."""

    label: str
    metric: str


@dataclass(frozen=True)
class Board:
    """One dashboard; ``marks`` is a query whose values are the Unix times of events in seconds, drawn as lines."""

    uid: str
    title: str
    text: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    marks: Query | None = None
    since: str = "now-6h"


def lines(title: str, text: str, *queries: Query, **changes: Any) -> Panel:
    """A time series."""
    options = {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    return Panel("timeseries", title, text, queries, options=options, **changes)


def number(title: str, text: str, *queries: Query, **changes: Any) -> Panel:
    """The newest value of each series, large."""
    options = {
        "reduceOptions": NEWEST, "colorMode": "value", "graphMode": "area", "textMode": "auto", "orientation": "auto",
        "justifyMode": "auto", "percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True,
    }  # fmt: skip
    return Panel("stat", title, text, queries, options=options, **{"width": 6, "height": 5, **changes})


def states(title: str, text: str, *queries: Query, **changes: Any) -> Panel:
    """Which state each series was in, as a band over time."""
    options = {"mergeValues": True, "showValue": "auto", "rowHeight": 0.9, "alignValue": "left", "legend": LEGEND,
               "tooltip": {"mode": "single", "sort": "none"}}  # fmt: skip
    return Panel("state-timeline", title, text, queries, options=options, **changes)


def bars(title: str, text: str, *queries: Query, **changes: Any) -> Panel:
    """The newest value of each series as a bar, the largest first as far as the query sorts them."""
    options = {"reduceOptions": NEWEST, "orientation": "horizontal", "displayMode": "gradient", "showUnfilled": True,
               "valueMode": "color", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300, "namePlacement": "auto",
               "sizing": "auto", "legend": LEGEND}  # fmt: skip
    return Panel("bargauge", title, text, queries, options=options, **changes)


def render(board: Board) -> Json:
    """The dashboard as Grafana's JSON model."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.text,
        "tags": ["plumbline"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": board.since, "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [{"type": "dashboards", "tags": ["plumbline"], "asDropdown": True, "title": "Plumbline", "includeVars": True,
                   "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "templating": {"list": [_source(), *(_variable(variable) for variable in board.variables)]},
        "annotations": {"list": [] if board.marks is None else [_marks(board.marks)]},
        "panels": _lay_out(board.rows),
    }  # fmt: skip


def queries_of(board: Board) -> list[str]:
    """Every expression of a dashboard, its variables and marks included."""
    found = [query.expression for row in board.rows for panel in row.panels for query in panel.queries]
    found += [variable.metric for variable in board.variables]
    return found if board.marks is None else [*found, board.marks.expression]


def _source() -> Json:
    return {
        "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0, "multi": False,
        "includeAll": False, "refresh": 1, "regex": "", "options": [], "skipUrlSync": False,
        "current": {"text": "prometheus", "value": "prometheus"},
    }  # fmt: skip


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.label, "label": variable.label, "type": "query", "datasource": SOURCE, "definition": query,
        "query": query, "refresh": 2, "regex": "", "sort": 1, "hide": 0, "multi": True,
        "includeAll": True, "allValue": ".*", "options": [], "skipUrlSync": False,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _marks(query: Query) -> Json:
    return {
        "name": "steps of rollouts", "datasource": SOURCE, "enable": True, "hide": False, "iconColor": "purple",
        "expr": f"{query.expression} * 1000", "useValueForTime": True, "titleFormat": query.legend, "step": "30s",
        "textFormat": "", "tagKeys": "service,action",
    }  # fmt: skip


def _lay_out(rows: Sequence[Row]) -> list[Json]:
    """Panels from left to right, a row's heading above them."""
    made: list[Json] = []
    top = 0
    for row in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})  # fmt: skip
        left, top, tallest = 0, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            made.append(_panel(panel, len(made) + 1, place))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return made


def _panel(panel: Panel, number: int, place: Json) -> Json:
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query.expression, "legendFormat": query.legend,
         "editorMode": "code", "range": True, "instant": False}
        for place, query in enumerate(panel.queries)
    ]  # fmt: skip
    defaults: Json = {"unit": panel.unit, "min": 0, "mappings": _mappings(panel), "color": _colour(panel)}
    if panel.most is not None:
        defaults["max"] = panel.most
    steps = panel.steps or ((None, "green"),)
    defaults["thresholds"] = {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}
    if panel.kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False,
                              "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"}}  # fmt: skip
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": SOURCE,
        "gridPos": place, "targets": targets, "options": dict(panel.options),
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }  # fmt: skip


def _mappings(panel: Panel) -> list[Json]:
    if not panel.texts:
        return []
    words = {value: {"text": text, "index": place} for place, (value, text) in enumerate(panel.texts.items())}
    return [{"type": "value", "options": words}]


def _colour(panel: Panel) -> Json:
    return {"mode": "thresholds" if panel.steps and panel.kind != "timeseries" else "palette-classic"}
