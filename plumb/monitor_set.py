"""Which monitors watch a set of services: the composition of rows that rooms measure and functions that judge them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import pyarrow as pa

from components.declarations import declarations_of
from components.served_labels import known_until, wait_us
from features.arrivals import measure_arrivals
from features.declarations import Catalog, View
from features.freshness import measure_freshness
from features.layout import HOUR_S, US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.quality import WEEKS, measure_quality
from models.specs import load_spec
from monitoring import freshness, quality, runs
from monitoring.drift.labelled import MONITOR as MATURED
from monitoring.drift.labelled import judge_matured_labels
from monitoring.drift.records import JudgedWindow
from monitoring.drift.streams import SETTINGS as ONLINE
from monitoring.drift.streams import OnlineDrift
from monitoring.drift.watch import PredictionWatch
from monitoring.monitor_settings import MonitorSettings
from monitoring.runner import Monitor
from monitoring.verdicts import Verdict
from pipelines.records import RunRecord, list_records
from plumb.features import store_of
from plumb.model_monitors import make_model_monitors
from plumb.settings import Settings

DRIFT: Final = "drift"
SETTLED_S: Final = 300
HOUR_US: Final = HOUR_S * US_PER_S


@dataclass(frozen=True)
class Watched:
    """What is watched.

    Attributes:
        services: model by service.
        store: address of the online stores; the workspace's own where None.
    """

    services: Mapping[str, str]
    store: str | None = None


def make_monitors(
    settings: Settings, watched: Watched, monitors: MonitorSettings, report: Callable[[JudgedWindow], None]
) -> list[Monitor]:
    """Every monitor of these services, their models, views and logs, and of the workspace's pipelines.

    Args:
        report: called with each drift window.

    Raises:
        SpecError: a model is unknown.
    """
    declared = {model: declarations_of(model) for model in watched.services.values()}
    views = {view.key: (catalog, view) for catalog, view in declared.values()}
    found = [_watch_freshness(settings, watched, catalog, view, monitors) for catalog, view in views.values()]
    for service, model in watched.services.items():
        found += _watch_drift(settings, service, model, monitors, report)
    for model in declared:
        found += make_model_monitors(settings.workspace, model, monitors)
    logs = {(catalog.name, view.entity): (catalog, view.entity) for catalog, view in declared.values()}
    found += [_watch_quality(settings, catalog, entity, monitors) for catalog, entity in logs.values()]
    found.append(Monitor(runs.MONITOR, "run:all", monitors.runs_s, lambda now_us: _judge_runs(settings, monitors, now_us)))
    return found


def _watch_freshness(settings: Settings, watched: Watched, catalog: Catalog, view: View, monitors: MonitorSettings) -> Monitor:
    def judge(now_us: int) -> Iterator[Verdict]:
        address = store_of(settings, view.key, watched.store)
        with open_store(address, ViewVersion.of(catalog, view), readonly=True) as store:
            yield freshness.judge_freshness(measure_freshness(store, view, now_us=now_us), view.key, now_us)

    return Monitor(freshness.MONITOR, freshness.view_subject(view.key), monitors.freshness_s, judge)


def _watch_quality(settings: Settings, catalog: Catalog, entity: str, monitors: MonitorSettings) -> Monitor:
    """The last whole hour, once it has ended for so long that what came in it is in the log; measured once, it reads weeks."""
    measured: dict[int, pa.Table] = {}

    def judge(now_us: int) -> Iterator[Verdict]:
        hour_us = (now_us - SETTLED_S * US_PER_S) // HOUR_US * HOUR_US - HOUR_US
        if hour_us not in measured:
            weeks = monitors.drift.weeks or WEEKS
            rows = [
                measure(settings.workspace, catalog, entity, hour_us=hour_us, weeks=weeks)
                for measure in (measure_quality, measure_arrivals)
            ]
            measured.clear()
            measured[hour_us] = pa.concat_tables(rows)
        yield quality.judge_quality(measured[hour_us], entity, monitors, now_us)

    return Monitor(quality.MONITOR, quality.log_subject(entity), monitors.quality_s, judge)


def _watch_drift(
    settings: Settings, service: str, model: str, monitors: MonitorSettings, report: Callable[[JudgedWindow], None]
) -> list[Monitor]:
    """Windows, values one by one, and labels as they mature.

    The watch of windows records verdicts on revisions itself, between a window's file and its own progress: none is lost.
    """
    workspace = settings.workspace
    watch = PredictionWatch(workspace, model, monitors.drift.heard_every(monitors.drift_s), service=service)
    online = OnlineDrift(workspace, service, model, replace(ONLINE, simulations=monitors.online_simulations))

    def judge(now_us: int) -> tuple[Verdict, ...]:
        for judged in watch.judge_due(now_us):
            report(judged)
        return ()

    def judge_labels(now_us: int) -> Iterator[Verdict]:
        catalog, view = declarations_of(model)
        known_at_us = max(known_until(workspace, catalog, view.entity, now_us), 0)
        horizon_us = wait_us(load_spec(model).label)
        return judge_matured_labels(
            workspace, service, model, monitors.drift, known_at_us=known_at_us, horizon_us=horizon_us
        )  # fmt: skip

    return [
        Monitor(DRIFT, service, monitors.drift_s, judge),
        Monitor(f"{DRIFT}.online", service, monitors.online_s, online.judge),
        Monitor(MATURED, service, monitors.labels_s, judge_labels),
    ]


def _judge_runs(settings: Settings, monitors: MonitorSettings, now_us: int) -> tuple[Verdict, ...]:
    known = [_as_run(record) for record in list_records(settings.workspace)]
    return runs.judge_runs(known, longest_s=monitors.longest_run_s, now_us=now_us)


def _as_run(record: RunRecord) -> runs.Run:
    return runs.Run(
        pipeline=record.pipeline,
        name=record.run_id,
        status=record.status,
        started_us=_instant(record.started_at),
        finished_us=_instant(record.finished_at),
        seconds=sum(step.seconds for step in record.steps),
        error=record.error,
    )


def _instant(text: str) -> int:
    """UTC microseconds of an ISO 8601 time; 0 where there is none."""
    return round(datetime.fromisoformat(text).timestamp() * US_PER_S) if text else 0
