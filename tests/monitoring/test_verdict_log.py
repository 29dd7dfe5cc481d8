"""The log of verdicts: what stands, what is blind, and what happened, over SQLite and PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from features.control_database import control_url as url_of
from features.workspace import Workspace
from monitoring.errors import VerdictError
from monitoring.verdict_log import read_history, read_standing, record_verdicts, renew_verdicts, retire
from monitoring.verdicts import Outcome, Severity, Verdict

S = 1_000_000
NOW_US = 1_700_000_000 * S
PASS = Verdict(
    "drift.stable.features", "churn/canary-2", Outcome.PASS, Severity.ROLL_BACK, {"drifted": 0}, "none of 24 drifted", NOW_US
)
FAIL = replace(PASS, outcome=Outcome.FAIL, evidence={"name_1": "spend_7d", "effect_1": 0.4}, text="1 of 24 features drifted")


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path, control_url)


def test_what_stands_is_what_was_said_last_and_history_tells_changes_only(workspace: Workspace) -> None:
    assert read_standing(workspace, now_us=NOW_US) == ()
    said = [PASS, replace(PASS, at_us=NOW_US + 60 * S), replace(FAIL, at_us=NOW_US + 120 * S)]
    for verdict in said:
        record_verdicts(workspace, [verdict], valid_for_s=300, now_us=verdict.at_us + S)
    (standing,) = read_standing(workspace, now_us=NOW_US + 130 * S)
    assert standing.verdict == standing.judged(NOW_US + 130 * S) == said[-1]
    assert (standing.since_us, standing.valid_until_us) == (NOW_US + 120 * S, NOW_US + 421 * S)
    assert read_history(workspace, since_us=0) == (said[0], said[2])
    assert read_history(workspace, since_us=NOW_US + 1) == (said[2],)
    assert read_history(workspace, since_us=0, subjects=["churn"]) == ()


def test_an_older_verdict_changes_nothing_and_subjects_are_told_apart(workspace: Workspace) -> None:
    stable = replace(PASS, subject="churn/stable")
    record_verdicts(workspace, [FAIL, stable], valid_for_s=300, now_us=NOW_US)
    record_verdicts(workspace, [replace(PASS, at_us=NOW_US - 1)], valid_for_s=9_999, now_us=NOW_US)
    canary, other = read_standing(workspace, now_us=NOW_US)
    assert (canary.verdict, other.verdict, canary.valid_until_us) == (FAIL, stable, NOW_US + 300 * S)
    assert read_standing(workspace, subjects=["churn/stable", "churn"], now_us=NOW_US) == (other,)
    assert len(read_history(workspace, since_us=0)) == 2


def test_a_monitor_that_has_not_spoken_when_it_promised_is_blind_until_it_speaks_or_is_renewed(workspace: Workspace) -> None:
    record_verdicts(workspace, [PASS], valid_for_s=300, now_us=NOW_US)
    (standing,) = read_standing(workspace, now_us=NOW_US + 301 * S)
    blind = standing.judged(NOW_US + 301 * S)
    assert (blind.outcome, blind.severity, blind.monitor, blind.subject) == (
        Outcome.INCONCLUSIVE, Severity.PAGE, PASS.monitor, PASS.subject
    )  # fmt: skip
    assert blind.text == "blind: nothing heard of drift.stable.features for 301 s; before, it said pass"
    renew_verdicts(workspace, PASS.subject, [PASS.monitor], valid_for_s=300, now_us=NOW_US + 400 * S)
    (standing,) = read_standing(workspace, now_us=NOW_US + 700 * S)
    assert standing.judged(NOW_US + 700 * S) == PASS
    assert read_history(workspace, since_us=0) == (PASS,)


def test_a_revision_that_is_gone_is_not_blind_and_comes_back_with_a_newer_verdict(workspace: Workspace) -> None:
    record_verdicts(workspace, [FAIL], valid_for_s=300, now_us=NOW_US)
    retire(workspace, FAIL.subject, NOW_US + 10 * S)
    assert read_standing(workspace, now_us=NOW_US + 10 * S) == ()
    record_verdicts(workspace, [replace(FAIL, at_us=NOW_US + 5 * S)], valid_for_s=300, now_us=NOW_US + 11 * S)
    assert read_standing(workspace, now_us=NOW_US + 11 * S) == ()
    again = replace(FAIL, at_us=NOW_US + 20 * S)
    record_verdicts(workspace, [again], valid_for_s=300, now_us=NOW_US + 21 * S)
    assert [each.verdict for each in read_standing(workspace, now_us=NOW_US + 21 * S)] == [again]
    assert read_history(workspace, since_us=0) == (FAIL, again)


def test_history_is_never_rewritten(workspace: Workspace) -> None:
    record_verdicts(workspace, [PASS], valid_for_s=300, now_us=NOW_US)
    engine = create_engine(url_of(workspace))
    for statement in ("UPDATE verdicts_history SET outcome = 'fail'", "DELETE FROM verdicts_history"):
        with pytest.raises(DatabaseError, match="verdicts are history"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()


def test_numbers_and_texts_that_a_database_refuses_are_kept_as_words(workspace: Workspace) -> None:
    odd = replace(FAIL, evidence={"p": float("nan"), "ratio": float("inf")}, text="plan_tier unseen a\x00b")
    record_verdicts(workspace, [odd], valid_for_s=300, now_us=NOW_US)
    (standing,) = read_standing(workspace, now_us=NOW_US)
    assert (standing.verdict.evidence, standing.verdict.text) == ({"p": "nan", "ratio": "inf"}, "plan_tier unseen a�b")


def test_all_verdicts_of_a_call_stand_or_none(workspace: Workspace) -> None:
    with pytest.raises(VerdictError, match="verdict refused"):
        record_verdicts(workspace, [PASS, replace(PASS, subject="")], valid_for_s=300, now_us=NOW_US)
    with pytest.raises(VerdictError, match="valid for more than 0 s"):
        record_verdicts(workspace, [PASS], valid_for_s=0, now_us=NOW_US)
    assert read_standing(workspace, now_us=NOW_US) == ()
