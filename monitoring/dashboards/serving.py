"""Dashboards of requests: the service, and a canary beside stable."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import Board, Query, Row, Variable, lines, number, states

SERVICE: Final = 'service=~"$service"'
REVISIONS: Final = f"plumb_plane_request_seconds_bucket{{{SERVICE}}}"
OBJECTIVE_S: Final = 0.1
"""99 % of answers within this long (``manifests/monitoring/rules/service.yaml``)."""
PERCENT: Final = {"unit": "percentunit"}
OK: Final = {"0": "no", "1": "yes"}
OK_STEPS: Final = ((None, "red"), (1, "green"))


def _rate(metric: str, by: str, matchers: str = SERVICE) -> str:
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def _share(part: str, whole: str, by: str) -> str:
    return f"{_rate(part, by)} / {_rate(whole, by)}"


def _quantile(share: float, buckets: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({buckets}[$__rate_interval])))"


FAILED: Final = _rate("plumb_plane_requests_total", "service, revision", f'{SERVICE}, code=~"5.."')
SENT: Final = _rate("plumb_plane_requests_total", "service, revision")
ERRORS: Final = f"{FAILED} / {SENT} or 0 * {SENT}"

HEADLINES: Final = Row(
    "At a glance",
    [
        number(
            "Answers a second",
            "At the plane, retries not counted twice.",
            Query(f"service:plumb_answers:rate5m{{{SERVICE}}}", "{{service}}"),
            unit="reqps",
        ),
        number(
            "Errors",
            "Share of the last 5 minutes' answers that are 5xx or found no process; 0.1 % a month is the budget.",
            Query(f"service:plumb_errors:ratio_rate5m{{{SERVICE}}}", "{{service}}"),
            **PERCENT,
            steps=((None, "green"), (0.001, "yellow"), (0.0144, "red")),
        ),
        number(
            "p99",
            "Of the last 5 minutes, at the plane.",
            Query(f"service_revision:plumb_plane_request_seconds:p99_rate5m{{{SERVICE}}}", "{{service}}/{{revision}}"),
            unit="s",
            steps=((None, "green"), (OBJECTIVE_S, "red")),
        ),
        number(
            "Ready",
            "Whether a revision's model answers probes.",
            Query(f"max by (service, revision) (plumb_plane_ready{{{SERVICE}}})", "{{service}}/{{revision}}"),
            texts=OK,
            steps=OK_STEPS,
        ),
    ],
)

REQUESTS: Final = Row(
    "Requests and errors",
    [
        lines(
            "Requests by code",
            "Sent to a revision. 502: its process failed it; stable may have answered it.",
            Query(_rate("plumb_plane_requests_total", "service, revision, code"), "{{service}}/{{revision}} {{code}}"),
            unit="reqps",
        ),
        lines("Errors by revision", "Share of requests with 5xx.", Query(ERRORS, "{{service}}/{{revision}}"), **PERCENT),
        lines(
            "Outcomes, as servers say",
            "ok, bad_request, overloaded, cancelled by the caller, error.",
            Query(_rate("plumb_requests_total", "model, revision, outcome"), "{{model}} {{revision}} {{outcome}}"),
            unit="reqps",
        ),
        lines(
            "Asked again, or asked in vain",
            "Answered by another process after this one's had failed, or by none.",
            Query(_rate("plumb_plane_retries_total", "service, revision"), "asked again after {{service}}/{{revision}}"),
            Query(_rate("plumb_plane_unrouted_requests_total", "service"), "no process: {{service}}"),
            unit="reqps",
        ),
    ],
)

LATENCY: Final = Row(
    "Latency",
    [
        lines(
            "p50, p90, p99 by revision",
            "At the plane: what callers wait, but for the network.",
            *(
                Query(_quantile(share, REVISIONS, "service, revision"), f"p{100 * share:g} {{{{service}}}}/{{{{revision}}}}")
                for share in (0.5, 0.9, 0.99)
            ),
            unit="s",
            steps=((None, "green"), (OBJECTIVE_S, "red")),
        ),
        lines(
            "p99 by stage",
            "queue: until its lookup began; lookup: online store; graph: features and model; total.",
            Query(
                _quantile(0.99, f"plumb_stage_seconds_bucket{{{SERVICE}}}", "model, revision, stage"),
                "{{model}} {{revision}} {{stage}}",
            ),
            unit="s",
        ),
        lines(
            "Scores in one call of the graph",
            "Of one request with many candidates, or several requests merged.",
            Query(_quantile(0.5, f"plumb_batch_rows_bucket{{{SERVICE}}}", "model, revision"), "median {{model}} {{revision}}"),
            Query(_quantile(0.99, f"plumb_batch_rows_bucket{{{SERVICE}}}", "model, revision"), "p99 {{model}} {{revision}}"),
        ),
        lines(
            "Requests under way",
            "In servers, now.",
            Query(f"sum by (model, revision) (plumb_requests_in_progress{{{SERVICE}}})", "{{model}} {{revision}}"),
        ),
    ],
)

FEATURES: Final = Row(
    "What scores rest on",
    [
        lines(
            "Degraded",
            "Share of entities whose values came from a local copy or from defaults, or were old, by reason.",
            Query(
                f"{_rate('plumb_degraded_entities_total', 'model, revision, reason')} / ignoring (reason) group_left "
                + _rate("plumb_entities_total", "model, revision"),
                "{{model}} {{revision}} {{reason}}",
            ),
            **PERCENT,
        ),
        lines(
            "Where values came from",
            "Entities a second: store, cache, local_copy, defaults.",
            Query(_rate("plumb_lookup_entities_total", "model, source"), "{{model}} {{source}}"),
        ),
        lines(
            "Cold",
            "Share of entities without any state.",
            Query(_share("plumb_cold_entities_total", "plumb_entities_total", "model, revision"), "{{model}} {{revision}}"),
            **PERCENT,
        ),
        states(
            "Breaker of the online store",
            "Open: the server has stopped asking it for a while.",
            Query(f'max by (model, revision) (plumb_store_breaker{{{SERVICE}, state="open"}})', "{{model}} {{revision}}"),
            texts={"0": "closed", "1": "open"},
            steps=((None, "green"), (1, "red")),
        ),
    ],
)

PROCESSES: Final = Row(
    "Processes and what they keep",
    [
        lines(
            "Restarts",
            "Times that a revision's process ended unasked.",
            Query(f"max by (service, revision) (plumb_plane_restarts{{{SERVICE}}})", "{{service}}/{{revision}}"),
            width=8,
        ),
        lines(
            "Predictions logged",
            "Scores answered a second, and rows that did not reach the prediction log.",
            Query(_rate("plumb_predictions_total", "model, revision"), "answered {{model}} {{revision}}"),
            Query(
                _rate("plumb_prediction_log_dropped_total", "model, revision, reason"), "lost {{model}} {{revision}} {{reason}}"
            ),
            width=8,
        ),
        lines(
            "CloudEvents",
            "Sent to the sink that the service names, and not sent.",
            Query(_rate("plumb_plane_events_sent_total", "service"), "sent {{service}}"),
            Query(_rate("plumb_plane_events_dropped_total", "service, reason"), "dropped {{service}} {{reason}}"),
            width=8,
        ),
    ],
)

SERVICE_VARIABLE: Final = Variable("service", "plumb_plane_ready")
MARKS: Final = Query(f"plumb_rollout_last_step_seconds{{{SERVICE}}}", "{{service}}: {{action}}")

SERVICE_BOARD: Final = Board(
    "plumbline-service",
    "Service",
    "Requests, errors, latency and what scores rest on, by model and revision.",
    [HEADLINES, REQUESTS, LATENCY, FEATURES, PROCESSES],
    (SERVICE_VARIABLE,),
    MARKS,
)

COMPARED: Final = Row(
    "Canary beside stable",
    [
        lines(
            "Share of traffic",
            "What each revision gets now; a canary that is not ready gets none.",
            Query(f"max by (service, revision) (plumb_plane_weight{{{SERVICE}}}) / 100", "{{service}}/{{revision}}"),
            **PERCENT,
            most=1.0,
        ),
        lines(
            "Requests",
            "Sent to each revision.",
            Query(_rate("plumb_plane_requests_total", "service, revision"), "{{service}}/{{revision}}"),
            unit="reqps",
        ),
        lines("Errors", "Share of requests with 5xx.", Query(ERRORS, "{{service}}/{{revision}}"), **PERCENT),
        lines(
            "p50 and p99",
            "At the plane.",
            Query(_quantile(0.5, REVISIONS, "service, revision"), "p50 {{service}}/{{revision}}"),
            Query(_quantile(0.99, REVISIONS, "service, revision"), "p99 {{service}}/{{revision}}"),
            unit="s",
        ),
        lines(
            "Degraded",
            "Share of entities without fresh features.",
            Query(
                _share("plumb_degraded_entities_total", "plumb_entities_total", "service, revision"), "{{service}}/{{revision}}"
            ),
            **PERCENT,
        ),
        lines(
            "Cold",
            "Share of entities without any state: the two should meet the same users.",
            Query(_share("plumb_cold_entities_total", "plumb_entities_total", "service, revision"), "{{service}}/{{revision}}"),
            **PERCENT,
        ),
    ],
)

TIMELINE: Final = Row(
    "The rollout",
    [
        states(
            "Phase",
            "Of each service's newest rollout.",
            Query(
                f"max by (service, rollout, phase) (plumb_rollout_phase{{{SERVICE}}}) == 1",
                "{{service}} {{rollout}}: {{phase}}",
            ),
            texts={"1": "so"},
        ),
        lines(
            "Share, as recorded",
            "Percent that the newest step gives the canary; traffic follows.",
            Query(f"max by (service, rollout) (plumb_rollout_percent{{{SERVICE}}})", "{{service}} rollout {{rollout}}"),
            unit="percent",
            most=100.0,
        ),
        lines(
            "Steps",
            "Seen recorded by controllers, by what they did.",
            Query(f"sum by (service, action) (plumb_rollout_steps_total{{{SERVICE}}})", "{{service}} {{action}}"),
        ),
        states(
            "Waits for a person",
            "Its stage has paged and goes no further by itself.",
            Query(f"max by (service, rollout) (plumb_rollout_paged{{{SERVICE}}})", "{{service}} rollout {{rollout}}"),
            texts=OK,
            steps=((None, "green"), (1, "red")),
        ),
    ],
)

CONTROLLERS: Final = Row(
    "Controllers",
    [
        number(
            "Act",
            "One holds the lease; others stand by.",
            Query("plumb_rollout_controller_acts", "{{instance}}"),
            texts={"0": "stands by", "1": "acts"},
            width=6,
        ),
        number(
            "Blind",
            "The control database does not answer.",
            Query("plumb_controller_blind", "{{instance}}"),
            texts=OK,
            steps=((None, "green"), (1, "red")),
        ),
        number(
            "Since the last tick",
            "Stuck, if more than a few seconds.",
            Query("time() - plumb_rollout_last_tick_seconds", "{{instance}}"),
            unit="s",
            steps=((None, "green"), (60, "red")),
        ),
        number(
            "Events a second",
            "CloudEvents that came in.",
            Query("rate(plumb_rollout_events_received[$__rate_interval])", "{{instance}}"),
        ),
        lines(
            "Ticks without the control database",
            "Counted by each controller.",
            Query("increase(plumb_rollout_faults_total[$__rate_interval])", "{{instance}}"),
            width=24,
            height=6,
        ),
    ],
)

ROLLOUT_BOARD: Final = Board(
    "plumbline-rollout",
    "Canary and rollout",
    "A canary beside stable; the controller's steps are marked in every picture.",
    [COMPARED, TIMELINE, CONTROLLERS],
    (SERVICE_VARIABLE,),
    MARKS,
    since="now-3h",
)
