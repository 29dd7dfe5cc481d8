from __future__ import annotations

import json
from typing import Any

import pytest

from plumb.errors import CommandError
from plumb.serving import read_fields

INPUTS = [
    {"name": "entity_id", "datatype": "BYTES"},
    {"name": "now", "datatype": "INT64"},
    {"name": "platform", "datatype": "BYTES"},
    {"name": "slot", "datatype": "INT64"},
]


def test_fields_take_the_type_that_the_server_names() -> None:
    assert read_fields(["platform=7", "slot=7", "platform=a=b"], INPUTS) == {"platform": "a=b", "slot": 7}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("platform", "no such request field"),
        ("now=5", "platform or slot; got 'now'"),
        ("slot=x", "expected an integer; got 'x'"),
    ],
)
def test_a_field_that_the_model_does_not_take_is_refused(word: str, expected: str) -> None:
    with pytest.raises(CommandError, match=expected):
        read_fields([word], INPUTS)


def test_a_command_without_a_server_says_so_and_may_be_tried_again(plumb: Any) -> None:
    done = plumb("score", "churn", "--user", "u1", "--url", "http://127.0.0.1:9")
    assert done.returncode == 75
    assert done.stderr.startswith("plumb: server does not answer: http://127.0.0.1:9")
    assert done.stderr.count("\n") == 1


def test_score_shows_the_score_and_the_features_behind_it(plumb: Any, served: Any) -> None:
    done = plumb(
        "score", "churn", "--user", "u1", "--now", "2025-03-01T12:00:00Z", "--field", "platform=ios", "--url", served.url
    )
    assert done.returncode == 0, done.stderr
    assert "0.252930" in done.stdout  # 2 records / 8 + 3 letters / 1024
    assert "churn version 1 (stable)" in done.stdout
    table = done.stdout[done.stdout.index("finished feature") :]
    assert [line.split()[1] for line in table.splitlines() if "records" in line or "letters" in line] == ["records", "letters"]


def test_score_says_why_within_80_columns(plumb: Any, served: Any) -> None:
    done = plumb("score", "churn", "--user", "u49", "--now", "2025-03-01T12:00:00Z", "--url", served.url)
    assert done.returncode == 0, done.stderr
    # 50 records: sessions add 49 / 8, the platform "unknown" 7 / 1024.
    assert "outcome within 7d: 1.5642, 30d: 6.2568" in done.stdout
    assert "why: +6.131836 from 0.125000, which the mean training row would score" in done.stdout
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if "raises" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["sessions", "▲ raises", "+6.125000", "records 50, letters 7"],
        ["platform", "▲ raises", "+0.006836", "unknown"],
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_score_prints_the_reply_as_json_when_asked(plumb: Any, served: Any) -> None:
    done = plumb("score", "churn", "--user", "nobody", "--now", "2025-03-01", "--json", "--url", served.url)
    prediction = json.loads(done.stdout)["predictions"][0]
    assert (prediction["cold"], prediction["features"]) == (True, {"records": 0.0, "letters": 7.0})


def test_score_repeats_the_servers_own_line_about_a_bad_request(plumb: Any, served: Any) -> None:
    done = plumb("score", "churn", "--user", "", "--url", served.url)
    assert done.returncode == 2
    assert "server replied 400: entity id has a length that no store can hold" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["other"], "model has no champion: 'other'"),
        (["churn", "--version", "2"], "churn version 2; expected a blessed version; got not blessed: loses to recency"),
        (["churn", "--version", "9"], "model version does not exist: churn version 9"),
    ],
)
def test_a_model_that_is_not_blessed_is_not_served(plumb: Any, arguments: list[str], expected: str) -> None:
    done = plumb("serve", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("store", "online store does not exist"),
        ("port", "HTTP port cannot be bound: 127.0.0.1:"),
        ("grpc", "gRPC port cannot be bound"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    plumb: Any, served: Any, tmp_path: Any, case: str, expected: str
) -> None:
    taken = (served.url if case == "port" else served.grpc).rsplit(":", 1)[1]
    ports = {"port": "0", "grpc-port": "0"} | (
        {"port": taken} if case == "port" else {"grpc-port": taken} if case == "grpc" else {}
    )
    arguments = [word for name, value in ports.items() for word in (f"--{name}", value)]
    done = plumb("serve", "churn", *arguments, *(["--store", str(tmp_path / "none")] if case == "store" else []))
    assert done.returncode == 2
    assert done.stdout == ""
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
