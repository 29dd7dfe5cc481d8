"""Alerts and verdicts as one list, and acks of single episodes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from features.control_database import open_session
from features.workspace import Workspace
from monitoring.acks import SCHEMA, Ack, read_acks, record_ack
from monitoring.alertmanager import Fired
from monitoring.errors import AlertError
from monitoring.standing_alerts import OF_MONITORS, RUNBOOKS, find_alerts, join_alerts
from monitoring.verdict_log import Standing
from monitoring.verdicts import Outcome, Severity, Verdict

NOW_US = 1_767_571_200_000_000
HOUR_US = 3_600_000_000
RULES = Path(__file__).parents[2] / "manifests" / "monitoring" / "rules"


def standing(
    monitor: str = "drift.training.features", subject: str = "churn/canary-1", outcome: Outcome = Outcome.FAIL,
    severity: Severity = Severity.PAGE, valid_until_us: int = NOW_US + HOUR_US,
) -> Standing:  # fmt: skip
    verdict = Verdict(monitor, subject, outcome, severity, {"feature": "sessions_7d"}, "sessions_7d moved by 0.31", NOW_US - 9)
    return Standing(verdict, NOW_US - HOUR_US, valid_until_us, NOW_US - 9)


def fired(**labels: str) -> Fired:
    annotations = {"summary": "so", "description": "it is so.", "runbook_url": "docs/runbooks/drift.md"}
    return Fired({"alertname": "DriftFound", "severity": "page", **labels}, annotations, NOW_US - HOUR_US // 2)


def test_a_verdict_that_prometheus_has_seen_is_one_alert_with_its_evidence_since_it_began_to_fail() -> None:
    seen = fired(monitor="drift.training.features", subject="churn/canary-1", service="churn")
    (alert,) = join_alerts([seen], [standing()], {}, NOW_US)
    assert (alert.name, alert.service, alert.since_us) == ("DriftFound", "churn", NOW_US - HOUR_US)
    assert alert.evidence == {"feature": "sessions_7d"}
    assert alert.description == "sessions_7d moved by 0.31"
    (alone,) = join_alerts([], [standing()], {}, NOW_US)
    assert (alone.id, alone.since_us, alone.service, alone.runbook) == (alert.id, alert.since_us, "churn", alert.runbook)


def test_what_passes_or_is_only_to_be_shown_calls_nobody() -> None:
    quiet = [standing(outcome=Outcome.PASS), standing(severity=Severity.INFO, subject="other")]
    assert join_alerts([], quiet, {}, NOW_US) == []


def test_a_monitor_that_is_not_heard_any_more_is_blind_since_it_should_have_spoken() -> None:
    silent = standing(outcome=Outcome.PASS, severity=Severity.INFO, valid_until_us=NOW_US - 7)
    (alert,) = join_alerts([], [silent], {}, NOW_US)
    assert (alert.name, alert.since_us, alert.runbook) == ("MonitorBlind", NOW_US - 7, f"{RUNBOOKS}/monitors.md")
    assert "nothing heard" in alert.description


def test_new_pages_come_first_then_tickets_then_what_is_seen_to() -> None:
    page, ticket = fired(service="a"), Fired({"alertname": "X", "severity": "ticket", "service": "b"}, {}, NOW_US - HOUR_US)
    quiet = Fired(page.labels | {"service": "c"}, {}, NOW_US - 2 * HOUR_US, silenced_by=("0123456789",))
    inhibited = Fired(page.labels | {"service": "d"}, {}, NOW_US - HOUR_US, inhibited_by=("f",))
    alerts = join_alerts([quiet, inhibited, ticket, page], [], {}, NOW_US)
    assert [(alert.subject, alert.state) for alert in alerts] == [
        ("a", "new"), ("b", "new"), ("c", "silenced"), ("d", "inhibited"),
    ]  # fmt: skip
    assert alerts[2].by == "silence 01234567"


def test_an_ack_holds_for_its_episode_only(control_url: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, control_url)
    (alert,) = join_alerts([fired(service="a")], [], read_acks(workspace, NOW_US), NOW_US)
    record_ack(workspace, Ack(alert.id, alert.since_us, "ann", "on it", NOW_US + HOUR_US, NOW_US))
    (acked,) = join_alerts([fired(service="a")], [], read_acks(workspace, NOW_US + 1), NOW_US + 1)
    assert (acked.id, acked.state, acked.by) == (alert.id, "acked", "ann")
    assert acked.ack is not None
    assert acked.ack.why == "on it"
    # It ends and comes back an hour later: somebody must look again.
    again = Fired(fired(service="a").labels, {}, NOW_US + HOUR_US // 2)
    (new,) = join_alerts([again], [], read_acks(workspace, NOW_US + 1), NOW_US + HOUR_US // 2)
    assert (new.id, new.state) == (alert.id, "new")
    assert read_acks(workspace, NOW_US + HOUR_US) == {}  # its time is over
    # Who shortens an ack means it: the longer one before does not come to life again.
    for who, hours in (("ann", 9), ("bob", 2)):
        record_ack(workspace, Ack(alert.id, alert.since_us, who, "on it", NOW_US + hours * HOUR_US, NOW_US))
    assert [ack.who for ack in read_acks(workspace, NOW_US + 1).values()] == ["bob"]
    assert read_acks(workspace, NOW_US + 3 * HOUR_US) == {}


@pytest.mark.parametrize(("who", "why", "for_us"), [("", "on it", 1), ("ann", " ", 1), ("ann", "on it", 0)])
def test_an_ack_names_who_and_why_and_ends_later(tmp_path: Path, who: str, why: str, for_us: int) -> None:
    with pytest.raises(AlertError, match="ack refused"):
        record_ack(Workspace(tmp_path), Ack("a", 0, who, why, NOW_US + for_us, NOW_US))


def test_acks_are_never_changed_or_deleted(control_url: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, control_url)
    record_ack(workspace, Ack("a", 0, "ann", "on it", NOW_US + 1, NOW_US))
    for statement in ("UPDATE alert_acks SET who = 'bob'", "DELETE FROM alert_acks"):
        with (
            pytest.raises((AlertError, DatabaseError), match="never change"),
            open_session(workspace, SCHEMA, write=True) as open_one,
        ):
            open_one.execute(text(statement))


def test_an_alert_is_found_by_its_id_its_beginning_or_its_name() -> None:
    alerts = join_alerts([fired(service="a"), fired(service="b")], [], {}, NOW_US)
    assert find_alerts(alerts, "DriftFound") == alerts
    assert find_alerts(alerts, alerts[0].id[:5]) == [alerts[0]]
    with pytest.raises(AlertError, match="alert does not stand: 'Nothing'"):
        find_alerts(alerts, "Nothing")


def test_a_verdict_has_the_name_and_runbook_that_the_rules_give_it() -> None:
    """Each rule's own pattern of monitors; the last of ours takes what no rule names."""
    found = {}
    for path in RULES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                monitor = re.search(r'[{ ]monitor=~?"([^"]+)"', rule["expr"])
                if "alert" in rule and monitor:
                    found[rule["alert"]] = (monitor[1].replace("[.]", r"\."), rule["annotations"]["runbook_url"])
    ours = {name: (pattern, f"{RUNBOOKS}/{page}.md") for pattern, name, page in OF_MONITORS[:-1]}
    assert found == ours
