"""Submission to a cluster: what arrives there, that nothing arrives twice, and one line for everything that goes wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from services.kfp import State, run_kfp_server

from pipelines.cluster import Address
from pipelines.compile import pipeline_hash, read_compiled
from pipelines.errors import ClusterUnavailable, SubmissionError
from pipelines.schedules import check_cron
from pipelines.submit import PIPELINE, Submission, submit

CODE = {"package": "0.1.0", "git_sha": "abc123", "git_dirty": False}
PARAMETERS = {"model": "churn", "workspace": "/workspace", "known_at_us": 0, "seed": 0, "control_database": ""}
DAILY = "0 30 4 * * *"


@pytest.fixture(scope="module")
def text() -> str:
    return read_compiled("training")


@pytest.fixture
def once(text: str) -> Submission:
    return Submission("churn", text, CODE, PARAMETERS, "", "2026-01-01T00:00:00Z")


@pytest.fixture
def daily(once: Submission) -> Submission:
    return replace(once, cron=DAILY)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def host(state: State) -> Iterator[str]:
    with run_kfp_server(state) as url:
        yield url


def test_a_run_refers_to_the_uploaded_version_and_trains_on_the_latest_snapshot(
    state: State, host: str, once: Submission, text: str
) -> None:
    done = submit(Address(host), once)
    assert done.version_name == f"0.1.0-{pipeline_hash(text)[:12]}"
    assert (done.uploaded, done.kind, done.name, done.action) == (True, "run", "churn-2026-01-01T00:00:00Z", "created")
    assert state.texts == {done.version_id: text}
    assert [entry["display_name"] for entry in state.pipelines] == [PIPELINE]
    assert state.versions[0]["description"] == "commit abc123"
    (run,) = state.runs
    assert run["run_id"] == done.id
    assert run["pipeline_version_reference"] == {"pipeline_id": done.pipeline_id, "pipeline_version_id": done.version_id}
    assert run["runtime_config"]["parameters"] == PARAMETERS
    assert state.experiments[0]["display_name"] == "plumbline-churn"


def test_caching_is_decided_in_the_compiled_pipeline(text: str) -> None:
    assert "cachingOptions: {}" in text
    assert "enableCache: true" not in text


def test_the_same_version_is_not_uploaded_twice_a_changed_one_is(state: State, host: str, once: Submission) -> None:
    first, second = submit(Address(host), once), submit(Address(host), once)
    assert (second.uploaded, second.version_id) == (False, first.version_id)
    changed = replace(once, text=once.text.replace("maxRetryCount: 1", "maxRetryCount: 2"))
    third = submit(Address(host), changed)
    assert third.uploaded
    assert len(state.versions) == 2
    assert len(state.runs) == 3
    assert len(state.pipelines) == len(state.experiments) == 1


def test_a_version_that_another_client_uploads_meanwhile_is_used(state: State, host: str, once: Submission) -> None:
    first = submit(Address(host), once)
    state.hidden_once.add(once.version_name)
    second = submit(Address(host), once)
    assert (second.uploaded, second.version_id) == (False, first.version_id)
    assert state.calls.count("POST /pipelines/upload_version") == 2


def test_a_schedule_never_catches_up_nor_runs_beside_itself(state: State, host: str, daily: Submission) -> None:
    done = submit(Address(host), daily)
    (schedule,) = state.recurring_runs
    assert (done.kind, done.id, done.action) == ("schedule", schedule["recurring_run_id"], "created")
    assert schedule["trigger"] == {"cron_schedule": {"cron": DAILY}}
    assert (schedule["no_catchup"], schedule["max_concurrency"], schedule["mode"]) == (True, "1", "ENABLE")
    assert schedule["runtime_config"]["parameters"]["known_at_us"] == 0
    assert state.runs == []


def test_the_same_schedule_is_left_alone_and_another_is_replaced_only_if_asked(
    state: State, host: str, daily: Submission
) -> None:
    first = submit(Address(host), daily)
    again = submit(Address(host), daily)
    assert (again.id, again.action) == (first.id, "unchanged")
    weekly = replace(daily, cron="0 0 5 * * mon")
    with pytest.raises(
        SubmissionError,
        match=r"^model has another schedule: plumbline-churn \([^)]+\); expected 0 0 5 \* \* mon; got 0 30 4 .*--replace",
    ):
        submit(Address(host), weekly)
    assert [entry["recurring_run_id"] for entry in state.recurring_runs] == [first.id]
    replaced = submit(Address(host), weekly, replace=True)
    assert replaced.action == "replaced"
    assert [entry["recurring_run_id"] for entry in state.recurring_runs] == [replaced.id]
    newer = replace(weekly, text=daily.text.replace("maxRetryCount: 1", "maxRetryCount: 2"))
    with pytest.raises(SubmissionError, match="of another version or parameters"):
        submit(Address(host), newer)


def test_all_pages_of_a_listing_are_read(state: State, host: str, daily: Submission) -> None:
    done = submit(Address(host), daily)
    state.recurring_runs += [{**state.recurring_runs[0], "recurring_run_id": f"copy-{number}"} for number in range(4)]
    replaced = submit(Address(host), daily, replace=True)
    assert [entry["recurring_run_id"] for entry in state.recurring_runs] == [replaced.id]
    assert replaced.id != done.id


def test_a_namespace_and_a_service_account_go_along(state: State, host: str, once: Submission) -> None:
    state.pipelines.append({"pipeline_id": "other", "display_name": "other", "namespace": "team-b"})
    submit(Address(host, namespace="team-a"), replace(once, service_account="trainer"))
    assert [entry.get("namespace") for entry in state.pipelines] == ["team-b", "team-a"]
    assert state.experiments[0]["namespace"] == "team-a"
    assert state.runs[0]["service_account"] == "trainer"


@pytest.mark.parametrize(
    ("failures", "error", "message"),
    [
        ({("GET", "/pipelines"): 500}, ClusterUnavailable, "^cluster failed: pipelines on http.* got 500 .*planted 500"),
        ({("POST", "/runs"): 503}, ClusterUnavailable, "^cluster failed: run 'churn-2026-01-01T00:00:00Z' on http.* got 503 "),
        ({("POST", "/pipelines"): 409}, SubmissionError, "^name is taken: pipeline 'plumbline-training' on http.* got 409 "),
        ({("POST", "/pipelines/upload_version"): 409}, SubmissionError, "^name is taken: pipeline version '0.1.0-"),
        ({("POST", "/experiments"): 403}, SubmissionError, "^cluster refuses us: experiment 'plumbline-churn' on .* got 403 "),
        ({("POST", "/runs"): 400}, SubmissionError, "^cluster does not accept this: run 'churn-"),
    ],
)  # fmt: skip
def test_what_a_server_says_no_to_is_one_line(
    state: State, host: str, once: Submission, failures: dict[tuple[str, str], int], error: type[Exception], message: str
) -> None:
    state.failures.update(failures)
    with pytest.raises(error, match=message) as failure:
        submit(Address(host), once)
    assert "\n" not in str(failure.value)


def test_a_token_is_sent_and_its_absence_told(state: State, host: str, once: Submission) -> None:
    state.token = "sesame"
    submit(Address(host, token="sesame"), once)
    for token in ("", "wrong"):
        with pytest.raises(SubmissionError, match=r"^cluster refuses us: pipelines on http[^;]+; .* got 401 .*--token-file"):
            submit(Address(host, token=token), once)


def test_nobody_listening_and_another_server_are_told_in_one_line(host: str, once: Submission) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ClusterUnavailable, match=r"^cluster does not answer: pipelines on http://127.0.0.1:\d+; .*refused"):
        submit(Address(f"http://127.0.0.1:{port}"), once)
    with pytest.raises(SubmissionError, match="^cluster does not accept this: pipelines on .* got 404 Not Found; .*--host"):
        submit(Address(f"{host}/elsewhere"), once)


@pytest.mark.parametrize("cron", ["0 0 4 * * *", "*/30 * * * * ?", "0 0,30 4-6 1 jan-mar mon,fri", "0 0 0 29 2 *"])
def test_schedules_of_six_fields_are_taken(cron: str) -> None:
    assert check_cron(f"  {cron} ") == cron


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("30 4 * * *", "expected 6 fields: second, minute, hour, day of month, month, day of week; got 5 fields"),
        ("@daily", "got 1 fields"),
        ("0 60 4 * * *", "expected a minute of 0 to 59, a range, a list, a step or \\*; got '60'"),
        ("0 0 6-4 * * *", "got '6-4'"),
        ("0 0 4 0 * *", "a day of month of 1 to 31"),
        ("0 0 */0 * * *", "got '\\*/0'"),
        ("0 0 4 * * noday", "got 'noday'"),
        ("0 0 4,, * * *", "got ''"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused_before_anything_is_sent(cron: str, message: str) -> None:
    with pytest.raises(SubmissionError, match=f"^schedule cannot be read: .*{message}"):
        check_cron(cron)


def test_the_command_submits_says_what_it_did_and_ends_with_the_code_of_the_trouble(
    state: State, host: str, tmp_path: Path
) -> None:
    state.token = "sesame"
    token = tmp_path / "token"
    token.write_text("sesame\n")
    arguments = ("churn", "--host", host, "--token-file", str(token), "--every", DAILY)
    done = run_plumb(tmp_path, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["kind"], said["action"], said["id"]) == ("schedule", "created", state.recurring_runs[0]["recurring_run_id"])
    again = run_plumb(tmp_path, *arguments)
    assert "already there; schedule plumbline-churn unchanged" in " ".join(again.stdout.split())
    refused = run_plumb(tmp_path, "churn", "--host", host)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("plumb: cluster refuses us: pipelines on ")
    missing = run_plumb(tmp_path, "churn", "--host", host, "--token-file", str(tmp_path / "nowhere"))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert missing.stderr.startswith("plumb: token cannot be read: ")
    state.failures["GET", "/pipelines"] = 502
    down = run_plumb(tmp_path, *arguments)
    assert (down.returncode, down.stderr.count("\n")) == (75, 1)


def run_plumb(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(folder / "workspace")]
    words = [*command, "pipelines", "submit", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env={**os.environ})
