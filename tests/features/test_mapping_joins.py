"""Mappings that bring several files and their side files together, and dates that are no times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.catalogs import load_catalog
from features.errors import EventLogError, PlumblineError
from features.events import read_events
from features.importing import Report, import_files, prepare_import
from features.profiles import profiles_current
from features.workspace import Workspace

NOW_US = 1_700_000_000_000_000

CAMPAIGNS = """
catalog: subscription
time_zone: UTC
entity_id: user
ingest_time: {delay_s: 60}
region: {constant: eu}
event_id: file_and_row
events:
  - type: offer_shown
    file: sent.csv
    join: [{file: campaigns.csv, on: campaign}]
    event_time: {column: start, time_of_day: "09:30"}
    where: {column: kind, not_equals: test}
    attributes: {offer_id: campaign, channel: kind}
  - type: upgrade
    file: bought.csv
    event_time: {column: day, time_of_day: "23:59:59"}
    attributes: {plan: {constant: pro}, amount_cents: {column: price, scale: 100}}
profiles:
  - name: account
    file: users.csv
    entity_id: user
    valid_from: {constant: "2017-01-01T00:00:00Z"}
    created_time: {delay_s: 0}
    fields: {country: country}
"""
SENT = [("u1", "c1"), ("u2", "c2"), ("u2", "c9"), ("u1", ""), ("u3", "c3")]
SIDE = [("c1", "email", "2017-03-01"), ("c2", "push", "2017-04-01"), ("c3", "test", "2017-05-01")]


def write(path: Path, columns: str, rows: Sequence[tuple[str, ...]]) -> Path:
    path.write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write(tmp_path / "sent.csv", "user,campaign", SENT)
    write(tmp_path / "campaigns.csv", "campaign,kind,start", SIDE)
    write(tmp_path / "bought.csv", "user,day,price", [("u1", "2017-03-05", "5")])
    write(tmp_path / "users.csv", "user,country", [("u1", "PT")])
    return Workspace(tmp_path / "workspace")


def run(workspace: Workspace, *files: str, mapping: str = CAMPAIGNS) -> Report:
    folder = workspace.root.parent
    (folder / "mapping.yaml").write_text(mapping)
    task = prepare_import(workspace, str(folder / "mapping.yaml"), catalog=None, now_us=NOW_US)
    return import_files(task, [folder / name for name in files])


def events(workspace: Workspace, *columns: str) -> list[tuple[Any, ...]]:
    table = read_events(workspace, load_catalog("subscription"), "user").to_pylist()
    return sorted(tuple(row[name] for name in columns) for row in table)


def dead_letters(workspace: Workspace) -> list[tuple[int, str]]:
    return list(pl.read_delta(str(workspace.dead_letters)).sort("row").select("row", "reason").iter_rows())


def refuse(workspace: Workspace, *files: str, mapping: str = CAMPAIGNS) -> str:
    with pytest.raises(PlumblineError) as caught:
        run(workspace, *files, mapping=mapping)
    assert not workspace.root.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{workspace.root.parent}/", "")


def test_each_block_reads_its_own_file_with_the_columns_of_its_side_file(workspace: Workspace) -> None:
    report = run(workspace, "sent.csv", "bought.csv", "users.csv")
    start, bought = datetime(2017, 3, 1, 9, 30, tzinfo=UTC), datetime(2017, 3, 5, 23, 59, 59, tzinfo=UTC)
    assert events(workspace, "entity_id", "event_type", "event_time", "offer_id", "channel", "amount_cents") == [
        ("u1", "offer_shown", start, "c1", "email", None), ("u1", "upgrade", bought, None, None, 500),
        ("u2", "offer_shown", datetime(2017, 4, 1, 9, 30, tzinfo=UTC), "c2", "push", None),
    ]  # fmt: skip
    # u3's row is filtered by a condition on a column of the side file: its campaign is a test.
    assert (report.files, report.rows, report.filtered) == (3, 7, 1)
    assert report.profiles == {"account": 1}
    known = profiles_current(workspace, load_catalog("subscription"), "account", as_of_us=NOW_US)
    assert known["country"].to_pylist() == ["PT"]


def test_a_row_without_side_row_is_bad_and_says_why(workspace: Workspace) -> None:
    run(workspace, "sent.csv")
    assert dead_letters(workspace) == [(2, "campaign c9 is not in campaigns.csv"), (3, "campaign is missing")]


def test_a_row_without_side_row_that_its_own_columns_filter_is_not_asked_for(workspace: Workspace) -> None:
    own = "where: [{column: kind, not_equals: test}, {column: user, equals: u1}]"
    run(workspace, "sent.csv", mapping=CAMPAIGNS.replace("where: {column: kind, not_equals: test}", own))
    assert dead_letters(workspace) == [(3, "campaign is missing")]  # u2's row with c9 is filtered


def test_keys_of_different_types_meet_as_texts(workspace: Workspace, tmp_path: Path) -> None:
    pl.DataFrame({"user": ["u1"], "campaign": [7]}).write_parquet(tmp_path / "sent.parquet")
    pl.DataFrame({"campaign": ["7"], "kind": ["email"], "start": [date(2017, 3, 1)]}).write_parquet(
        tmp_path / "campaigns.parquet"
    )
    run(
        workspace,
        "sent.parquet",
        mapping=CAMPAIGNS.replace("sent.csv", "sent.parquet").replace("campaigns.csv", "campaigns.parquet"),
    )
    assert events(workspace, "offer_id", "event_time") == [("7", datetime(2017, 3, 1, 9, 30, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("side", "columns", "line"),
    [
        ([("c1", "email", "2017-03-01"), ("c1", "push", "2017-03-01")], "campaign,kind,start",
         "campaigns.csv on campaign; expected one row for each campaign in campaigns.csv; got 'c1' missing or repeated"),
        ([("", "email", "2017-03-01")], "campaign,kind,start",
         "campaigns.csv on campaign; expected one row for each campaign in campaigns.csv; got None missing or repeated"),
        ([("c1", "email", "2017-03-01")], "campaign,user,start",
         "campaigns.csv on campaign; expected no other column of the same name in both files; got user"),
        ([("c1", "email", "2017-03-01")], "id,kind,start",
         "campaigns.csv on campaign; expected column 'campaign' in both files; got none in campaigns.csv"),
    ],
)  # fmt: skip
def test_a_side_file_that_cannot_be_joined_stops_everything(
    workspace: Workspace, tmp_path: Path, side: list[tuple[str, ...]], columns: str, line: str
) -> None:
    write(tmp_path / "campaigns.csv", columns, side)
    expected = f"side file cannot be joined: {line}; next: correct the side file or the mapping"
    assert refuse(workspace, "sent.csv") == expected


def test_a_missing_side_file_and_a_file_that_no_block_reads_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "campaigns.csv").rename(tmp_path / "other.csv")
    assert refuse(workspace, "sent.csv").startswith("file cannot be imported: campaigns.csv; expected a file; got no such file")
    assert refuse(workspace, "other.csv") == (
        "mapping does not read this file: other.csv; expected one of sent.csv, bought.csv, users.csv; got other.csv; "
        "next: pass a file that the mapping names"
    )


def test_a_side_file_is_part_of_what_was_imported(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, "sent.csv")
    assert run(workspace, "sent.csv").files_already_there == 1
    write(tmp_path / "campaigns.csv", "campaign,kind,start", [("c1", "push", "2017-03-02"), *SIDE[1:]])
    with pytest.raises(EventLogError, match="^source was already imported differently: "):
        run(workspace, "sent.csv")


def test_a_date_without_a_stated_time_of_day_is_no_event_time(workspace: Workspace, tmp_path: Path) -> None:
    bare = CAMPAIGNS.replace('{column: day, time_of_day: "23:59:59"}', "day")
    run(workspace, "bought.csv", mapping=bare)
    assert dead_letters(workspace) == [(0, "event_time is a date without a time of day")]
    pl.DataFrame({"user": ["u1"], "day": [date(2017, 3, 5)], "price": [5]}).write_parquet(tmp_path / "bought.parquet")
    other = Workspace(tmp_path / "other")
    assert refuse(other, "bought.parquet", mapping=bare.replace("bought.csv", "bought.parquet")) == (
        "column cannot be used: 'day'; expected event_time: times, or dates with time_of_day; got a column of Date; "
        "next: map another column, or state how to read this one"
    )


def test_a_stated_time_of_day_takes_only_dates_whatever_their_form(workspace: Workspace, tmp_path: Path) -> None:
    days = [("u1", "2017-03-05", "1"), ("u2", "2017-03-05 10:00", "2"), ("u3", "2017-03-05T10:00:00Z", "3")]
    write(tmp_path / "bought.csv", "user,day,price", days)
    run(workspace, "bought.csv")
    assert dead_letters(workspace) == [(row, "event_time has a time of day of its own") for row in (1, 2)]
    noon = datetime(2017, 3, 5, 12, tzinfo=UTC)
    form = CAMPAIGNS.replace(
        '{column: day, time_of_day: "23:59:59"}', '{column: day, format: "%d.%m.%Y", time_of_day: "12:00"}'
    )
    write(tmp_path / "bought.csv", "user,day,price", [("u1", "05.03.2017", "1")])
    second = Workspace(tmp_path / "second")
    run(second, "bought.csv", mapping=form)
    assert events(second, "event_time") == [(noon,)]
    frame = pl.DataFrame({"user": ["u1", "u2"], "day": ["2017-03-05T00:00", "2017-03-05T07:00"], "price": [5, 5]})
    frame = frame.with_columns(pl.col("day").str.to_datetime())
    frame.write_parquet(tmp_path / "bought.parquet")
    third = Workspace(tmp_path / "third")
    run(third, "bought.parquet", mapping=CAMPAIGNS.replace("bought.csv", "bought.parquet").replace("23:59:59", "12:00"))
    assert events(third, "event_time") == [(noon,)]
    assert dead_letters(third) == [(1, "event_time has a time of day of its own")]
