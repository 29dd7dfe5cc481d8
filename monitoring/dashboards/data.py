"""Dashboards of data: drift, freshness and the stream, labels, pipelines and monitors."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import Board, Query, Row, Variable, bars, lines, number, states

OUTCOMES: Final = {"0": "pass", "1": "inconclusive", "2": "FAIL"}
OUTCOME_STEPS: Final = ((None, "green"), (1, "yellow"), (2, "red"))
VERDICTS: Final = {"texts": OUTCOMES, "steps": OUTCOME_STEPS}
VIEW: Final = 'view=~"$view"'
MODEL: Final = 'model=~"$model"'
TOP: Final = 15
DAY_S: Final = 86_400


def _verdicts(title: str, text: str, monitors: str, **changes: int) -> Row:
    query = Query(
        f'max by (subject, monitor, severity) (plumb_verdict_outcome{{monitor=~"{monitors}"}})',
        "{{subject}} {{monitor}} ({{severity}})",
    )
    return Row(title, [states(title, text, query, **VERDICTS, width=24, **changes)])


FEATURES: Final = Row(
    "Which features moved",
    [
        bars(
            "How far, of the newest windows",
            "KS distance or total variation, 0 to 1; the first of each ranking, by name.",
            Query(
                f"topk({TOP}, max by (subject, reference, feature) (plumb_drift_feature_effect))",
                "{{feature}}: {{subject}} against {{reference}}",
            ),
            most=1.0,
            height=12,
            steps=((None, "green"), (0.1, "yellow"), (0.25, "red")),
        ),
        lines(
            "How far, over time",
            "The same, as it came to that.",
            Query(
                f"topk({TOP}, max by (subject, reference, feature) (plumb_drift_feature_effect))",
                "{{feature}}: {{subject}} against {{reference}}",
            ),
            most=1.0,
            height=12,
        ),
        bars(
            "Beyond what may page",
            "Decades by which a p-value lies below its threshold; 0 pages nobody.",
            Query(
                f"topk({TOP}, clamp_min(log10(max by (subject, reference, feature) (plumb_drift_feature_threshold) / "
                "clamp_min(max by (subject, reference, feature) (plumb_drift_feature_p_value), 1e-300)), 0))",
                "{{feature}}: {{subject}} against {{reference}}",
            ),
            steps=((None, "green"), (0.001, "red")),
        ),
        states(
            "Failing, as windows were judged",
            "By monitor, subject and reference.",
            Query("max by (subject, reference, monitor) (plumb_drift_failing)", "{{subject}} {{monitor}} {{reference}}"),
            texts={"0": "pass", "1": "FAIL"},
            steps=((None, "green"), (1, "red")),
        ),
    ],
)

WINDOWS: Final = Row(
    "What is judged",
    [
        lines(
            "Age of the newest window",
            "If it grows, nothing is judged: too few rows, or no monitor.",
            Query("time() - max by (subject, reference) (plumb_drift_last_window_seconds)", "{{subject}} {{reference}}"),
            unit="s",
            width=8,
        ),
        lines(
            "Verdicts an hour",
            "Given by window, by outcome.",
            Query("sum by (outcome) (increase(plumb_drift_verdicts_total[1h]))", "{{outcome}}"),
            width=8,
        ),
        lines(
            "Events and errors of the detector",
            "CloudEvents by what became of them; windows that could not be judged.",
            Query("sum by (result) (rate(plumb_drift_events_total[$__rate_interval]))", "{{result}}"),
            Query("sum(increase(plumb_drift_errors_total[$__rate_interval]))", "not judged"),
            width=8,
        ),
    ],
)

DRIFT_BOARD: Final = Board(
    "plumbline-drift",
    "Drift",
    "What is served against training rows, earlier weeks and stable, by feature.",
    [
        _verdicts(
            "Drift, as it stands",
            "PAGE stops promotions and opens a retraining run; ROLL_BACK takes a canary's traffic.",
            "drift([.].*)?|skew",
        ),
        FEATURES,
        WINDOWS,
    ],
    since="now-2d",
)

FRESHNESS: Final = Row(
    "How old the online store is",
    [
        lines(
            "Age of the oldest shard",
            "By view; an alert fires where it is older than its view promises.",
            Query(f"max by (view) (plumb_freshness_seconds{{{VIEW}}})", "{{view}}"),
            unit="s",
        ),
        states(
            "Freshness and quality, as they stand",
            "By view and log.",
            Query('max by (subject, monitor) (plumb_verdict_outcome{monitor=~"freshness|quality"})', "{{subject}} {{monitor}}"),
            **VERDICTS,
        ),
    ],
)

STREAM: Final = Row(
    "The stream",
    [
        lines(
            "Events folded",
            "Read from the log; repeats and refusals among them.",
            Query(f"sum by (view) (rate(plumb_stream_events_total{{{VIEW}}}[$__rate_interval]))", "{{view}}"),
            Query(f"sum by (view) (rate(plumb_stream_repeats_total{{{VIEW}}}[$__rate_interval]))", "{{view}} repeats"),
            Query(f"sum by (view) (rate(plumb_stream_refused_total{{{VIEW}}}[$__rate_interval]))", "{{view}} refused"),
        ),
        lines(
            "Not folded yet",
            "Events between the log's end and what was read last, by partition.",
            Query(
                f"plumb_stream_log_end_offset{{{VIEW}}} - on (view, partition) plumb_stream_next_offset{{{VIEW}}}",
                "{{view}} {{partition}}",
            ),
        ),
        lines(
            "Age of the last event folded",
            "By partition: grows where the log is quiet, too.",
            Query(f"time() - plumb_stream_newest_seconds{{{VIEW}}}", "{{view}} {{partition}}"),
            unit="s",
        ),
        lines(
            "Commits",
            "Into the online store.",
            Query(f"sum by (view) (rate(plumb_stream_commits_total{{{VIEW}}}[$__rate_interval]))", "{{view}}"),
            Query(f"min by (view) (plumb_stream_log_readable{{{VIEW}}})", "{{view}}: the log answers"),
        ),
    ],
)

STREAM_BOARD: Final = Board(
    "plumbline-stream",
    "Freshness and stream",
    "How old features are, and whether events are folded as they come.",
    [FRESHNESS, STREAM],
    (Variable("view", "plumb_freshness_seconds"),),
)

MATURITY: Final = Row(
    "When outcomes are known",
    [
        lines(
            "From a prediction to its outcome",
            "Of those that have one, by quantile.",
            Query(f"max by (model, quantile) (plumb_label_delay_seconds{{{MODEL}}})", "{{model}} p{{quantile}}"),
            unit="s",
        ),
        lines(
            "Matured",
            "Share of logged predictions whose label has matured.",
            Query(f"max by (model) (plumb_labels_matured_share{{{MODEL}}})", "{{model}}"),
            unit="percentunit",
            most=1.0,
        ),
    ],
)

LABELS_BOARD: Final = Board(
    "plumbline-labels",
    "Labels and performance",
    "How late outcomes are, and what labels and estimates say of each version.",
    [
        MATURITY,
        _verdicts(
            "Matured labels, early ones, and the estimate before they come",
            "labels: on matured ones; early_labels: on those known soon; estimate: from scores; maturity: do labels come?",
            "labels|early_labels|estimate|maturity",
            height=10,
        ),
    ],
    (Variable("model", "plumb_labels_matured_share"),),
    since="now-30d",
)

RUNS: Final = Row(
    "Pipelines",
    [
        states(
            "How the last run ended",
            "A refused version is no failure: that is what gates are for.",
            Query("max by (pipeline) (plumb_run_last_status)", "{{pipeline}}"),
            texts={"0": "succeeded", "1": "not blessed", "2": "FAILED"},
            steps=((None, "green"), (1, "blue"), (2, "red")),
            width=8,
        ),
        lines(
            "Since the last run ended",
            "A ticket after two days.",
            Query("time() - max by (pipeline) (plumb_run_last_finished_seconds)", "{{pipeline}}"),
            unit="s",
            width=8,
            steps=((None, "green"), (2 * DAY_S, "red")),
        ),
        lines(
            "How long its steps took",
            "Seconds of work, last run.",
            Query("max by (pipeline) (plumb_run_seconds)", "{{pipeline}}"),
            unit="s",
            width=8,
        ),
    ],
)

MONITORS: Final = Row(
    "Monitors",
    [
        states(
            "Every verdict that stands",
            "Inconclusive is no pass: the monitor is blind.",
            Query("max by (subject, monitor) (plumb_verdict_outcome)", "{{subject}} {{monitor}}"),
            **VERDICTS,
            width=24,
            height=14,
        ),
        lines(
            "Since each was heard",
            "A monitor that is not heard for three of its intervals is blind.",
            Query("max by (subject, monitor) (plumb_verdict_age_seconds)", "{{subject}} {{monitor}}"),
            unit="s",
            width=12,
        ),
        lines(
            "Errors, and how long a round takes",
            "A monitor that raises is a verdict, too.",
            Query("sum by (monitor) (increase(plumb_monitor_errors_total[$__rate_interval]))", "{{monitor}}"),
            Query("max(plumb_monitor_round_seconds)", "round, seconds"),
            width=12,
        ),
    ],
)

PROCESSES: Final = Row(
    "Processes and alerts",
    [
        states(
            "What answers scrapes",
            "A process that was killed stays here until another of its job starts.",
            Query("max by (job, instance) (up)", "{{job}} {{instance}}"),
            texts={"0": "down", "1": "up"},
            steps=((None, "red"), (1, "green")),
        ),
        states(
            "Alerts that fire",
            "`plumb alerts list` has their evidence.",
            Query(
                'max by (alertname, severity, service, subject) (ALERTS{alertstate="firing"})',
                "{{alertname}} {{service}}{{subject}} ({{severity}})",
            ),
            texts={"1": "fires"},
            steps=((None, "red"),),
        ),
        number(
            "Since the last round of monitors",
            "Stuck, if more than minutes.",
            Query("time() - plumb_monitor_last_round_seconds", "{{instance}}"),
            unit="s",
            steps=((None, "green"), (900, "red")),
        ),
    ],
)

HEALTH_BOARD: Final = Board(
    "plumbline-health",
    "Pipelines and monitors",
    "Last runs, what every monitor says, which processes answer, what fires.",
    [RUNS, MONITORS, PROCESSES],
    since="now-1d",
)
