"""Outcomes of served predictions as they come, and figures of labels by window, on a handful of events derived by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from labels.predicted import DAY_US, START_US, Asked, events, log_predictions

from components.answers import read_answers, space_out
from components.label_figures import measure_served_labels
from components.served_labels import label_served
from features.arrivals import LATE, REFUSED, measure_arrivals
from features.audits import KEPT, keep_audit, read_newest_audit
from features.catalogs import load_catalog
from features.events import append_events
from features.workspace import Workspace
from monitoring.estimate import EARLY
from monitoring.label_maturity import NEVER_KNOWN, Answers
from monitoring.monitor_settings import MonitorSettings
from monitoring.verdict_log import read_standing, record_verdicts
from monitoring.verdicts import Outcome, Severity
from plumb.model_monitors import make_model_monitors

CATALOG = load_catalog("subscription")
HOUR_US = DAY_US // 24
END = ("late", "session", 400.0, 400.0)


def bring(workspace: Workspace, *rows: tuple[str, str, float, float], source: str = "file") -> None:
    table = events(*rows).append_column("plan", pa.array(["pro"] * len(rows)))
    append_events(workspace, CATALOG, "user", table, source=source)


def test_an_outcome_counts_from_the_day_it_is_known_and_one_row_a_user_and_horizon_is_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    # "a" cancels on day 5 and that is known on day 6; "b" on day 95, beyond the 90 days after day 2; "c" never.
    bring(workspace, ("a", "cancellation", 5, 6), ("b", "cancellation", 95, 95), ("c", "session", 9, 9))
    asked = [Asked("a", 1), Asked("b", 2), Asked("c", 2.5), Asked("a", 3), Asked("b", 8)]
    log_predictions(workspace, "churn", asked)

    def read(day: float, most: int = 100) -> Answers:
        return read_answers(workspace, "churn", since_us=START_US, now_us=START_US + round(day * DAY_US), most=most)

    def known(answers: Answers) -> list[float | None]:
        return [None if each == NEVER_KNOWN else (each - START_US) / DAY_US for each in answers.known_us.tolist()]

    def days(answers: Answers) -> list[float]:
        return [(each - START_US) / DAY_US for each in answers.now_us.tolist()]

    assert (days(read(5.5)), known(read(5.5))) == ([1, 2, 2.5, 3], [None] * 4)
    assert known(read(7)) == [6, None, None, 6]
    # The log ends on day 95: later silence is no evidence, so nothing has matured on day 106.
    assert (known(read(106)), read(106).matured.any()) == ([6, None, None, 6, 95], False)
    bring(workspace, END, source="more")
    # With 90 days and 14 of delay the rows of days 1 and 2 have matured by then.
    assert read(106.25).matured.tolist() == [True, True, False, False, False]
    assert days(space_out(read(106), 104 * DAY_US)) == [1, 2, 2.5]
    assert 0 < len(set(read(106, most=1).entity.tolist())) < 3


def test_labels_of_the_last_whole_weeks_are_measured_together_and_dated_at_the_grid(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    users = [f"u{number}" for number in range(40)]
    bring(workspace, *[(user, "cancellation", 3, 3) for user in users[:10]], END)
    log_predictions(workspace, "churn", [Asked(user, 1, score=0.9 if user in users[:10] else 0.2) for user in users])
    known_us = START_US + 112 * DAY_US
    label_served(workspace, "churn", now_us=known_us)
    settings = MonitorSettings(least_labels=30, least_positives=5)
    (found,) = measure_served_labels(workspace, "churn", known_at_us=known_us, horizon_s=104 * 86_400, settings=settings)
    week_us = 7 * DAY_US
    assert (found.end_us, found.end_us - found.start_us) == (known_us // week_us * week_us, week_us)
    assert (found.version, found.labels, found.users, found.positives) == (1, 40, 40, 10)
    assert found.auc is not None
    assert found.gap is not None
    # 10 of 40 are positive; scores say (10 * 0.9 + 30 * 0.2) / 40 = 0.375.
    np.testing.assert_allclose([found.auc.value, found.mean_score, found.gap.value], [1.0, 0.375, 0.125], rtol=1e-6)


def test_late_events_are_counted_by_the_hour_in_which_they_came_beside_earlier_weeks(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    hour = 10 / 24
    rows = [("a", "session", 21 + hour, 21 + hour), ("b", "session", 20.0, 21 + hour + 0.01)]
    rows += [(f"c{week}", "session", week * 7 + hour, week * 7 + hour) for week in range(1, 3)]
    bring(workspace, *rows, ("old", "session", 0.0, 0.0))
    found = measure_arrivals(workspace, CATALOG, "user", hour_us=START_US + 21 * DAY_US + 10 * HOUR_US).to_pylist()
    late, refused = ({row["metric"]: row for row in found}[name] for name in (LATE, REFUSED))
    assert (late["value"], late["reference"], late["events"]) == (0.5, 0.0, 2)
    assert (refused["value"], refused["reference_windows"]) == (0.0, 3)


def test_an_audit_is_kept_without_its_user_and_the_newest_is_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = {"comparison": "replay", "kind": "state", "signal": "sessions", "example": {"entity_id": "u1", "now_us": 1}}
    audit = {"model": "churn", "versions": [1], "start_us": 1, "end_us": 2, "rows": 3, "whole": 1, "statuses": {"checked": 3},
             "checked": {"state": 3}, "mismatched": {"state": 1}, "mismatches": 1, "first": first}  # fmt: skip
    assert read_newest_audit(workspace, "churn") is None
    for at_us in range(KEPT + 2):
        path = keep_audit(workspace, audit, measured_at_us=at_us)
    assert "u1" not in path.read_text()
    found = read_newest_audit(workspace, "churn")
    assert found is not None
    assert (found["measured_at_us"], found["first"]) == (KEPT + 1, {"kind": "state", "signal": "sessions"})
    assert len(list(path.parent.iterdir())) == KEPT


def test_a_model_whose_outcomes_stop_coming_pages_long_before_its_labels_mature(tmp_path: Path) -> None:
    workspace, last = Workspace(tmp_path), 30
    asked = [Asked(f"u{day}-{number}", day + 0.5, score=0.2) for day in range(last) for number in range(60)]
    # Of ten users a day two leave, known 1.2 days later, until day 20; from then on nobody does.
    left = [user for number, user in enumerate(asked) if number % 10 < 2 and user.day < 20]
    bring(workspace, *[(user.entity, "cancellation", user.day + 1, user.day + 1.2) for user in left])
    bring(workspace, ("end", "session", last, last), source="more")
    log_predictions(workspace, "churn", asked)
    now_us = START_US + last * DAY_US

    monitors = make_model_monitors(workspace, "churn", MonitorSettings())
    said = {(each.monitor, each.subject): each for monitor in monitors for each in monitor.judge(now_us)}

    early = said[EARLY, "model:churn/1"]
    assert (early.outcome, early.severity, early.evidence["direction"]) == (Outcome.FAIL, Severity.PAGE, "fall")
    # No label has matured: that takes 104 days.
    assert said["maturity", "model:churn"].evidence["matured"] == 0
    assert not any(monitor == "labels" for monitor, _ in said)
    assert said["skew", "model:churn"].text == "nobody has compared served rows with the batch path"
    record_verdicts(workspace, [*said.values()], valid_for_s=60, now_us=now_us)
    # A month later nobody asks version 1 any more: nothing stands of it and nobody is blind to it.
    later_us = now_us + 30 * DAY_US
    assert [each for monitor in monitors[-1:] for each in monitor.judge(later_us)] == []
    assert {each.verdict.subject for each in read_standing(workspace, now_us=later_us)} == {"model:churn"}
