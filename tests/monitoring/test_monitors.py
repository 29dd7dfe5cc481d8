"""What monitors say of rows: when they page, when they are blind, and that one that fails is a verdict, not silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from features.errors import StoreUnavailable
from features.rows import FRESHNESS, QUALITY
from monitoring.freshness import judge_freshness
from monitoring.labels import Figure, Matured, Trained, judge_labels
from monitoring.monitor_metrics import MonitorMetrics
from monitoring.monitor_settings import MonitorSettings, read_monitor_settings
from monitoring.quality import judge_quality
from monitoring.runner import Monitor, Runner
from monitoring.runs import Run, judge_runs
from monitoring.skew_verdict import judge_skew
from monitoring.verdict_log import Standing
from monitoring.verdicts import Outcome, Severity, Verdict

MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)
NOW_US = round(MONDAY.timestamp() * 1e6)
HOUR_US = 3_600_000_000
SETTINGS = MonitorSettings()
WEEK_US = 7 * 24 * HOUR_US


def shard(number: int, age_s: float | None, promise_s: int = 300) -> dict[str, Any]:
    late = age_s is None or age_s > promise_s
    return {
        "view_key": "user@1", "shard": number, "measured_at": MONDAY, "as_of": None if age_s is None else MONDAY,
        "log_offset": 7, "age_s": age_s, "freshness_sla_s": promise_s, "late": late, "half_filled": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ages", "outcome", "says"),
    [
        ([], Outcome.INCONCLUSIVE, "no shard was measured"),
        # A quiet log's stream moves its watermark on, so its shards are young although nothing has come.
        ([2.0, 5.0], Outcome.PASS, "the oldest is 5 s old"),
        ([2.0, 301.0], Outcome.FAIL, "1 of 2 shards (1) are older than 300 s"),
        ([900.0, 901.0], Outcome.FAIL, "the stream is down or its store"),
        ([2.0, None], Outcome.FAIL, "1 of 2 shards were never filled (1)"),
    ],
)
def test_a_view_is_as_fresh_as_its_oldest_shard_and_no_row_is_blindness(
    ages: list[float | None], outcome: Outcome, says: str
) -> None:
    rows = pa.Table.from_pylist([shard(number, age) for number, age in enumerate(ages)], schema=FRESHNESS)
    verdict = judge_freshness(rows, "user@1", NOW_US)
    assert (verdict.outcome, verdict.severity, verdict.subject) == (outcome, Severity.PAGE, "view:user@1")
    assert says in verdict.text
    known = [age for age in ages if age is not None]
    assert verdict.evidence.get("age_s") == (max(known) if known else None)


def measure(metric: str, value: float, weeks: list[float], events: int = 1_000, attribute: str = "plan") -> dict[str, Any]:
    return {
        "entity": "user", "event_type": "purchase", "attribute": None if metric == "volume" else attribute, "metric": metric,
        "start": MONDAY, "end": MONDAY + timedelta(hours=1), "events": events, "value": value, "detail": "",
        "reference": sum(weeks) / len(weeks) if weeks else None, "reference_low": min(weeks, default=None),
        "reference_high": max(weeks, default=None), "reference_windows": len(weeks),
    }  # fmt: skip


def quality(*rows: dict[str, Any]) -> Verdict:
    return judge_quality(pa.Table.from_pylist(list(rows), schema=QUALITY), "user", SETTINGS, NOW_US)


def test_half_of_the_events_gone_or_a_new_share_of_nulls_pages_and_a_busy_day_does_not() -> None:
    weeks = [1_000.0, 1_100.0, 950.0, 1_050.0]
    assert quality(measure("volume", 1_300, weeks)).outcome is Outcome.PASS
    assert quality(measure("volume", 0, weeks)).outcome is Outcome.FAIL
    lost = quality(measure("volume", 300, weeks), measure("null_rate", 0.01, [0.01, 0.02, 0.0, 0.01]))
    assert (lost.outcome, lost.evidence["failing"], lost.evidence["name_1"]) == (Outcome.FAIL, 1, "events of purchase")
    nulls = quality(measure("volume", 1_000, weeks), measure("null_rate", 0.10, [0.01, 0.02, 0.0, 0.01]))
    assert nulls.text == "1 measures are not as before: null_rate of purchase.plan 10.0% (was 1.0%)"
    # Two events of an hour that had four: neither rare nor worth a call.
    assert quality(measure("volume", 2, [4.0, 5.0, 3.0, 4.0])).outcome is Outcome.PASS
    assert quality(measure("volume", 300, [1_000.0])).severity is Severity.INFO
    assert quality().outcome is Outcome.INCONCLUSIVE


def test_quality_of_five_null_months_pages_no_more_often_than_configured() -> None:
    # Counts of an hour scatter between weeks by a tenth beyond chance, nulls are 3 %: 3,600 hours, 5 pages allowed.
    rng = np.random.default_rng(1)
    pages = 0
    for hour in range(3_600):
        mean = 400 * (1 + 0.8 * np.sin(hour * 2 * np.pi / 24))
        counts = np.maximum(rng.poisson(mean * rng.lognormal(0, 0.1, 5)), 1)
        nulls = rng.binomial(counts, 0.03) / counts
        volume = measure("volume", counts[0], counts[1:].tolist(), int(counts[0]))
        found = quality(volume, measure("null_rate", nulls[0], nulls[1:].tolist(), int(counts[0])))
        pages += found.outcome is Outcome.FAIL
    assert pages <= 5


def audit(**changes: Any) -> dict[str, Any]:
    known = {"measured_at_us": NOW_US - HOUR_US, "end_us": NOW_US - 2 * HOUR_US, "rows": 900, "whole": 90,
             "statuses": {"checked": 880}, "mismatches": 0, "first": None}  # fmt: skip
    return known | changes


def test_a_mismatch_names_its_signal_and_an_old_audit_or_none_is_blind() -> None:
    def judge(found: dict[str, Any] | None) -> Verdict:
        return judge_skew("churn", found, most_age_s=7 * 86_400, now_us=NOW_US)

    assert judge(audit()).outcome is Outcome.PASS
    wrong = judge(audit(mismatches=12, first={"kind": "state", "signal": "sessions"}))
    assert (wrong.outcome, wrong.evidence["signal"]) == (Outcome.FAIL, "sessions")
    assert wrong.text == "12 mismatches in 900 served rows; first state of sessions"
    # A fresh audit of rows that were answered long ago says nothing of what is served now.
    for found in (None, audit(measured_at_us=NOW_US - 2 * WEEK_US), audit(end_us=NOW_US - 2 * WEEK_US)):
        assert (judge(found).outcome, judge(found).severity) == (Outcome.INCONCLUSIVE, Severity.PAGE)


MATURED = Matured("churn", 3, NOW_US - WEEK_US, NOW_US, 4_000, 3_000, 400, 0.10, Figure(0.80, 0.012), Figure(0.30, 0.01),
                  Figure(0.0, 0.005))  # fmt: skip
TRAINED = Trained(Figure(0.82, 0.01), Figure(0.29, 0.008))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.PASS),
        # z = (0.82 - 0.74) / hypot(0.012, 0.01) = 5.1, where a chance of 0.05 asks for 1.64.
        ({"auc": Figure(0.74, 0.012)}, Outcome.FAIL),
        ({"auc": Figure(0.74, 0.08)}, Outcome.PASS),  # z = 0.99
        ({"auc": Figure(0.805, 0.001)}, Outcome.PASS),  # certain, and below the floor of 0.02
        ({"mean_score": 0.16, "gap": Figure(0.06, 0.005)}, Outcome.FAIL),
        ({"log_loss": Figure(0.36, 0.01)}, Outcome.FAIL),
        ({"positives": 10}, Outcome.INCONCLUSIVE),
    ],
)
def test_labels_page_where_a_figure_is_worse_than_at_training_by_more_than_its_floor_and_chance(
    changes: dict[str, Any], outcome: Outcome
) -> None:
    verdict = judge_labels(replace(MATURED, **changes), TRAINED, SETTINGS)
    assert (verdict.outcome, verdict.subject, verdict.at_us) == (outcome, "model:churn/3", NOW_US)
    assert verdict.severity is (Severity.INFO if outcome is Outcome.INCONCLUSIVE else Severity.PAGE)


def test_labels_may_page_as_rarely_as_anybody_likes() -> None:
    settings = replace(SETTINGS, alarms_per_month=1e-15)
    verdict = judge_labels(replace(MATURED, auc=Figure(0.60, 0.012)), TRAINED, settings)
    # 1e-15 * 7 / 30 / 3 is less than what 1 - chance could tell from 1; z = 0.22 / 0.0156 = 14.1.
    assert (verdict.outcome, float(str(verdict.evidence["threshold_z"])) > 8) == (Outcome.FAIL, True)


def test_a_pipelines_last_run_counts_and_one_that_hangs_after_it() -> None:
    def run(number: int, status: str, hours_ago: float) -> Run:
        at_us = NOW_US - round(hours_ago * HOUR_US)
        return Run("training", f"run-{number}", status, at_us, 0 if status == "running" else at_us + HOUR_US, 60.0, "disk full")

    def judge(*runs: Run) -> Verdict:
        (verdict,) = judge_runs(runs, longest_s=86_400, now_us=NOW_US)
        return verdict

    assert judge(run(1, "failed", 9), run(2, "not blessed", 5)).outcome is Outcome.PASS
    failed = judge(run(1, "succeeded", 9), run(2, "failed", 5), run(3, "running", 1))
    assert (failed.outcome, failed.text, failed.subject) == (Outcome.FAIL, "run-2 failed: disk full", "run:training")
    assert "run-4 has been under way for 30.0 h" in judge(run(1, "succeeded", 90), run(4, "running", 30)).text
    # Of a run that was killed long ago and never ended, a later one that did says enough.
    assert judge(run(1, "running", 90), run(2, "succeeded", 5)).outcome is Outcome.PASS


def test_a_monitor_that_raises_is_a_verdict_that_pages_and_the_others_go_on() -> None:
    said: list[Verdict] = []
    broken = True

    def judge(now_us: int) -> list[Verdict]:
        if broken:
            raise ZeroDivisionError("of\nrows")
        return [Verdict("drift.training.score", "churn/stable", Outcome.PASS, Severity.PAGE, {}, "", now_us)]

    def fine(now_us: int) -> list[Verdict]:
        return [Verdict("freshness", "view:user@1", Outcome.PASS, Severity.PAGE, {}, "young", now_us)]

    def record(verdicts: Any, *, valid_for_s: float, now_us: int) -> None:
        assert valid_for_s == 600
        said.extend(verdicts)

    runner = Runner([Monitor("drift", "churn", 30, judge), Monitor("freshness", "view:user@1", 60, fine)], record)
    done = runner.call_due(NOW_US)
    assert [(each.monitor, each.outcome) for each in said] == [("drift", Outcome.INCONCLUSIVE), ("freshness", Outcome.PASS)]
    assert said[0].text == "the monitor failed: ZeroDivisionError: of rows"
    assert [(monitor.name, error) for monitor, error in done.errors] == [("drift", "ZeroDivisionError: of rows")]
    broken = False
    assert runner.call_due(NOW_US + 29_000_000).called == []
    said.clear()
    runner.call_due(NOW_US + 30_000_000)  # it is well again, and its own verdict says so beside what it found
    assert [(each.monitor, each.outcome) for each in said] == [("drift.training.score", Outcome.PASS), ("drift", Outcome.PASS)]


@pytest.mark.parametrize(("error", "in_full"), [(StoreUnavailable("it sleeps"), False), (KeyError("score"), True)])
def test_a_fault_that_nobody_foresaw_is_told_with_its_traceback(
    error: Exception, in_full: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def judge(_now_us: int) -> list[Verdict]:
        raise error

    done = Runner([Monitor("drift", "churn", 30, judge)], lambda *_, **__: None).call_due(NOW_US)
    assert [(each.outcome, each.severity) for each in done.verdicts] == [(Outcome.INCONCLUSIVE, Severity.PAGE)]
    assert [line for _, line in done.errors] == [f"{type(error).__name__}: {error}"]
    told = [record for record in caplog.records if record.levelname == "ERROR" and record.exc_info]
    assert [record.getMessage() for record in told] == (["drift of churn: unexpected"] if in_full else [])


def test_a_clock_that_is_set_back_silences_no_monitor() -> None:
    runner = Runner([Monitor("runs", "run:all", 60, lambda now_us: ())], lambda *_, **__: None)
    hours_back_us = NOW_US - 5 * HOUR_US
    called = [len(runner.call_due(at_us).called) for at_us in (NOW_US, NOW_US + 59_000_000, hours_back_us, hours_back_us + 1)]
    assert called == [1, 0, 1, 0]


def test_what_cannot_be_recorded_is_judged_again_with_the_next_round() -> None:
    tries = []

    def record(verdicts: Any, *, valid_for_s: float, now_us: int) -> None:
        tries.append(len(verdicts))
        if len(tries) == 1:
            raise StoreUnavailable("the database sleeps")

    runner = Runner([Monitor("runs", "run:all", 3_600, lambda now_us: ())], record)
    assert [error for _, error in runner.call_due(NOW_US).errors] == ["verdicts cannot be recorded: the database sleeps"]
    assert runner.call_due(NOW_US + 1).errors == []
    assert (tries, runner.call_due(NOW_US + 2).called) == ([1, 1], [])


def test_metrics_show_what_stands_as_of_the_scrape_and_a_silent_monitor_turns_blind() -> None:
    registry, clock_us = CollectorRegistry(), NOW_US
    metrics = MonitorMetrics(registry, lambda: clock_us)
    rows = pa.Table.from_pylist([shard(0, 40.0)], schema=FRESHNESS)
    verdicts = [
        judge_freshness(rows, "user@1", NOW_US),
        Verdict("maturity", "model:churn", Outcome.PASS, Severity.PAGE, {"matured_share": 0.4, "delay_s_p50": 9.0}, "", NOW_US),
        *judge_runs([Run("training", "r", "failed", NOW_US - HOUR_US, NOW_US, 61.0, "")], longest_s=9.0, now_us=NOW_US),
    ]
    standings = [Standing(verdict, NOW_US, NOW_US + 120_000_000, NOW_US) for verdict in verdicts]
    runner = Runner([Monitor("runs", "run:all", 60, lambda now_us: ())], lambda *_, **__: None)
    metrics.show(runner.call_due(NOW_US), standings, (NOW_US, NOW_US + 250_000))

    def scrape() -> list[str]:
        return generate_latest(registry).decode().splitlines()

    for line in (
        'plumb_verdict_outcome{monitor="freshness",severity="page",subject="view:user@1"} 0.0',
        'plumb_verdict_age_seconds{monitor="freshness",subject="view:user@1"} 0.0',
        'plumb_freshness_seconds{view="user@1"} 40.0',
        'plumb_label_delay_seconds{model="churn",quantile="0.5"} 9.0',
        'plumb_labels_matured_share{model="churn"} 0.4',
        'plumb_run_last_status{pipeline="training"} 2.0',
        'plumb_run_seconds{pipeline="training"} 61.0',
        'plumb_monitor_errors_total{monitor="runs"} 0.0',
        "plumb_monitor_round_seconds 0.25",
    ):
        assert line in scrape()
    clock_us = NOW_US + 500_000_000
    assert 'plumb_verdict_outcome{monitor="freshness",severity="page",subject="view:user@1"} 1.0' in scrape()
    assert 'plumb_verdict_age_seconds{monitor="freshness",subject="view:user@1"} 500.0' in scrape()


def test_settings_are_read_whole_or_refused(tmp_path: Any) -> None:
    path = tmp_path / "monitors.yaml"
    path.write_text("alarms_per_month: 3\ndrift: {effect_floor: 0.2}\n")
    found = read_monitor_settings(path)
    assert (found.alarms_per_month, found.drift.effect_floor, found.quality_s) == (3, 0.2, SETTINGS.quality_s)
    for text in ("colour: red", "drift: {colour: red}", "alarms_per_month: 0", "share_floor: 1.5", "- 1", "drift: 3"):
        path.write_text(text)
        with pytest.raises(Exception, match="refused"):
            read_monitor_settings(path)
