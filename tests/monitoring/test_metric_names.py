"""Every metric and label that a rule or dashboard names is one that the running code makes, as its own registries say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alerting.expressions import expressions, groupings, recorded, selectors
from prometheus_client import CollectorRegistry

from features.catalogs import load_catalog
from features.event_log.compaction import open_live_log
from features.workspace import Workspace
from inference import metrics as server
from inference.plane.metrics import PlaneMetrics
from monitoring.drift.metrics import DriftMetrics
from monitoring.monitor_metrics import MonitorMetrics
from monitoring.rollout.metrics import ControllerMetrics
from plumb.stream_metrics import StreamCollector

OF_EVERY_TARGET = {"job", "instance"}
OF_SERVERS = {"service", "version"}
"""What ``plumb.scrape_targets.servers_of`` gives their targets."""
OF_PROMETHEUS = {
    "up": set(), "ALERTS": {"alertname", "alertstate", "severity", "kind", "service", "subject", "model"},
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "prometheus_notifications_alertmanagers_discovered": set(), "prometheus_notifications_errors_total": {"alertmanager"},
}  # fmt: skip
"""Its own; tests/e2e/test_alerting.py finds them in a running one."""
OF_SUBJECTS = {"service", "model", "view", "pipeline"}
"""What the recording rule adds to a verdict's labels."""


def names_of(registry: CollectorRegistry, target: set[str]) -> dict[str, set[str]]:
    """Series' names with their labels, whether or not there is one yet."""
    found = {}
    for name, collector in registry._names_to_collectors.items():
        found[name] = {*getattr(collector, "_labelnames", ()), *target, *({"le"} if name.endswith("_bucket") else ())}
    return found


def names_of_collector(collector: Any) -> dict[str, set[str]]:
    """Series of a collector that makes them when it is asked."""
    found: dict[str, set[str]] = {}
    for metric in collector.collect():
        suffix = "_total" if metric.type == "counter" else ""
        found[metric.name + suffix] = {*metric._labelnames}
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Labels by name of every series that our processes and Prometheus make."""
    plane, controller, shared = PlaneMetrics().registry, ControllerMetrics().registry, CollectorRegistry()
    found = names_of(plane, set()) | names_of(controller, set())
    for value in vars(server).values():
        if hasattr(value, "_labelnames"):
            suffixes = ("_bucket", "_count", "_sum") if hasattr(value, "_upper_bounds") else ("", "_total")
            for suffix in suffixes:
                le = {"le"} if suffix == "_bucket" else set()
                found[value._name + suffix] = {*value._labelnames, *OF_SERVERS, *le}
    DriftMetrics(shared, 10)
    monitors = MonitorMetrics(shared, lambda: 0)
    found |= names_of(shared, set()) | names_of_collector(monitors._standings)
    catalog, workspace = load_catalog("subscription"), Workspace(tmp_path_factory.mktemp("workspace"))
    stream = StreamCollector("subscriber@1", workspace.root, lambda: open_live_log(workspace, catalog, "user"))
    found |= names_of_collector(stream)
    stream.close()
    return {name: labels | OF_EVERY_TARGET for name, labels in (found | OF_PROMETHEUS).items()}


def labels_of(name: str, exported: dict[str, set[str]]) -> set[str]:
    """Labels of a series; a recorded one has those by which its name says that it is grouped."""
    if name in exported:
        return exported[name]
    level = name.partition(":")[0]
    verdict = exported["plumb_verdict_outcome"] | OF_SUBJECTS
    return verdict if level == "subject" else set(level.split("_"))


@pytest.mark.parametrize("where", expressions())
def test_what_a_rule_or_panel_reads_is_exported_with_the_labels_that_it_names(
    where: str, exported: dict[str, set[str]]
) -> None:
    expression = expressions()[where]
    found = selectors(expression)
    assert found, "no metric was found in it"
    every: set[str] = set()
    for name, matchers in found:
        assert name in exported or name in recorded(), f"nobody exports {name}"
        assert set(matchers) <= labels_of(name, exported), f"{name} has labels {sorted(labels_of(name, exported))}"
        every |= labels_of(name, exported)
    assert groupings(expression) <= every


def test_buckets_and_states_that_are_named_exist(exported: dict[str, set[str]]) -> None:
    """A matcher that equals nothing selects nothing, and nobody would notice."""
    from features.online.breaker import OPEN
    from inference.plane.metrics import SECONDS
    from monitoring.label_maturity import QUANTILES
    from monitoring.rollout.step import Phase
    from monitoring.verdicts import Severity
    from plumb.scrape_targets import JOBS

    known = {
        "le": {f"{bound:g}" for bound in SECONDS}, "state": {OPEN}, "quantile": {f"{each:g}" for each in QUANTILES},
        "severity": set(map(str, Severity)), "job": set(JOBS), "phase": set(map(str, Phase)), "action": {"rollback"},
        "alertstate": {"firing"},
    }  # fmt: skip
    for where, expression in expressions().items():
        for name, matchers in selectors(expression):
            for label, value in matchers.items():
                if value.startswith("=") and not value.startswith("=~") and label != "monitor":
                    assert value[1:] in known[label], f"{where}: {name} has no {label} {value}"


def test_expressions_are_read_as_they_are_written() -> None:
    text = 'sum by (a, b) (rate(x_total{c="d", e=~"f|g"}[5m])) / on (a) group_left (h) max(y) unless z offset 1w > 14.4 * 2'
    assert selectors(text) == [("x_total", {"c": "=d", "e": "=~f|g"}), ("y", {}), ("z", {})]
    assert groupings(text) == {"a", "b", "h"}


def test_the_server_names_no_label_twice(tmp_path: Path) -> None:
    """A target's label that a series has of its own would rename the series' one."""
    for value in vars(server).values():
        assert not OF_SERVERS & set(getattr(value, "_labelnames", ()))
