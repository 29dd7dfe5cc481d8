"""From files to events: hand-made files with hand-derived rows, bad rows, repeats, crashes."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from features import importing
from features.errors import EventLogError, MappingError, PlumblineError
from features.events import read_events
from features.importing import Report, import_files, prepare_import
from features.profiles import profiles_as_of, profiles_current
from features.source_files import SourceFileError
from features.workspace import Workspace

NOW_US = 1_700_000_000_000_000

INVOICES = """
catalog: retail
time_zone: Europe/London
where: {column: customer, is_null: false}
group_by: [invoice, customer]
event_id: invoice
entity_id: customer
event_time: {min: at}
ingest_time: {delay_s: 3600}
events:
  - type: order
    where: [{not: {column: invoice, starts_with: C}}, {column: quantity, greater_than: 0}]
    attributes: &amounts
      amount_cents: {sum: {product: [quantity, price], scale: 100, round: half_away_from_zero}}
      items: {sum: quantity}
      lines: count
  - type: cancellation
    where: {column: invoice, starts_with: C}
    attributes: *amounts
profiles:
  - name: address
    entity_id: customer
    valid_from: at
    created_time: {delay_s: 3600}
    fields: {country: country}
    collapse: true
"""
COLUMNS = ("invoice", "customer", "at", "quantity", "price", "country")
LINES = [
    ("1", "007", "2010-06-01 10:00", "2", "1.25", "France"),
    ("1", "007", "2010-06-01 10:01", "1", "0.005", "France"),
    ("1", "007", "2010-06-01 10:01", "0", "9.99", "France"),
    ("C2", "007", "2010-12-01 10:00", "-3", "1.15", "France"),
    ("3", "", "2010-12-01 11:00", "1", "1.00", "Italy"),
    ("4", "8", "2010-12-02T09:00:30", "1", "19.99", "Italy"),
]

FLAT = """
catalog: subscription
time_zone: UTC
event_id: id
entity_id: user
event_time: at
ingest_time: {column: seen}
region: region
events:
  - type: {column: kind}
    attributes: {amount_cents: cents, platform: platform, duration_ms: ms}
"""
EVENT = {"id": "e1", "user": "u1", "kind": "payment", "at": "2024-01-01T00:00:00Z", "seen": "2024-01-01T00:01:00+00:00",
         "region": "eu", "cents": 5, "platform": None, "ms": None}  # fmt: skip


def write_csv(path: Path, lines: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    text = "\n".join(",".join(line) for line in [columns, *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(workspace: Workspace, mapping: str, *files: Path, late: bool = False) -> Report:
    path = workspace.root.parent / "mapping.yaml"
    path.write_text(mapping)
    return import_files(prepare_import(workspace, str(path), catalog=None, now_us=NOW_US, late=late), files)


def read_rows(workspace: Workspace, task_catalog: str, entity: str, *columns: str) -> list[tuple[Any, ...]]:
    from features.catalogs import load_catalog

    table = read_events(workspace, load_catalog(task_catalog), entity).to_pylist()
    return sorted(tuple(row[name] for name in columns) for row in table)


def dead_letters(workspace: Workspace) -> list[tuple[int, str]]:
    rows = pl.read_delta(str(workspace.dead_letters)).sort("row", "reason")
    return list(rows.select("row", "reason").iter_rows())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.mark.parametrize("name", ["lines.csv", "lines.csv.gz"])
def test_invoice_lines_become_one_event_an_invoice_in_cents_and_utc(workspace: Workspace, tmp_path: Path, name: str) -> None:
    report = run(workspace, INVOICES, write_csv(tmp_path / name, LINES))
    columns = ("event_id", "entity_id", "event_type", "event_time", "ingest_time", "region", "amount_cents", "items", "lines")
    # Invoice 1: lines of 2 x 1.25 = 250 cents and 1 x 0.005 = 0.5 cents, half away from zero: 1; London is UTC+1 in June.
    # C2: -3 x 1.15 = -345; in December London is UTC. 4: 1999 (19.99 * 100 is 1998.9999999999998 in binary).
    assert read_rows(workspace, "retail", "customer", *columns) == [
        ("1", "007", "order", datetime(2010, 6, 1, 9, 0, tzinfo=UTC), datetime(2010, 6, 1, 10, 0, tzinfo=UTC), "eu", 251, 3, 2),
        ("4", "8", "order", datetime(2010, 12, 2, 9, 0, 30, tzinfo=UTC), datetime(2010, 12, 2, 10, 0, 30, tzinfo=UTC), "eu",
         1999, 1, 1),
        ("C2", "007", "cancellation", datetime(2010, 12, 1, 10, 0, tzinfo=UTC), datetime(2010, 12, 1, 11, 0, tzinfo=UTC), "eu",
         -345, -3, 1),
    ]  # fmt: skip
    # Filtered: the line without customer. The line of quantity 0 is no part of the order, yet the profile reads it.
    assert report == Report(files=1, rows=6, filtered=1, events={"order": 2, "cancellation": 1}, profiles={"address": 2})


def test_profile_rows_are_known_after_their_delay_and_repeats_are_collapsed(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", LINES))
    catalog = prepare_import(workspace, "online_retail_ii", catalog=None, now_us=NOW_US).catalog
    known = profiles_current(workspace, catalog, "address", as_of_us=NOW_US)
    assert known.to_pylist() == [{"entity_id": "007", "country": "France"}, {"entity_id": "8", "country": "Italy"}]
    rows = DeltaTable(workspace.profile("address")).to_pyarrow_table().num_rows
    assert rows == 2
    at_us = int(datetime(2010, 6, 1, 10, 0, tzinfo=UTC).timestamp()) * 1_000_000
    ids, now_us = pl.Series(["007", "007"]).to_arrow(), pl.Series([at_us - 1, at_us]).to_numpy()
    assert profiles_as_of(workspace, catalog, "address", ids, now_us)["country"].to_pylist() == ["unknown", "France"]


def test_json_lines_and_parquet_give_the_same_events(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        EVENT,
        EVENT | {"id": "e2", "kind": "session", "cents": None, "platform": "ios", "ms": 900, "at": "2024-01-01 02:00:00+02:00"},
    ]
    mapping = FLAT.replace("platform: platform", "platform: {column: platform, optional: true}")
    first, second = Workspace(tmp_path / "a" / "w"), Workspace(tmp_path / "b" / "w")
    for each in (first, second):
        each.root.parent.mkdir()
    run(first, mapping, write_jsonl(tmp_path / "events.jsonl", rows))
    frame = pl.DataFrame(rows).with_columns(
        pl.col("at", "seen").str.to_datetime("%Y-%m-%dT%H:%M:%S%#z", strict=False).fill_null(datetime(2024, 1, 1, tzinfo=UTC))
    )
    frame.write_parquet(tmp_path / "events.parquet")
    run(second, mapping, tmp_path / "events.parquet")
    columns = (
        "event_id",
        "entity_id",
        "event_type",
        "event_time",
        "ingest_time",
        "region",
        "amount_cents",
        "platform",
        "duration_ms",
    )
    begin, seen = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    expected = [
        ("e1", "u1", "payment", begin, seen, "eu", 5, None, None),
        ("e2", "u1", "session", begin, seen, "eu", None, "ios", 900),
    ]
    assert read_rows(first, "subscription", "user", *columns) == expected
    assert read_rows(second, "subscription", "user", *columns) == expected


def test_one_row_gives_an_event_to_each_of_two_users(workspace: Workspace, tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "e.csv",
        [("2015-01-01 00:00:00", "1", "2", "comment_on_answer")],
        ("event_ts", "src_user", "dst_user", "event_type"),
    )
    report = import_files(prepare_import(workspace, "mathoverflow_events", catalog=None, now_us=NOW_US), [path])
    rows = read_rows(workspace, "mathoverflow", "user", "entity_id", "event_type", "event_id")
    assert [row[:2] for row in rows] == [("1", "comment_to_answer"), ("2", "received_comment_to_answer")]
    assert rows[0][2].endswith("-0-comment_to_answer")
    assert report.filtered == 0


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"user": None}, "entity_id is missing"),
    ({"user": ""}, "entity_id is missing"),
    ({"id": None}, "event_id is missing"),
    ({"at": None}, "event_time is missing"),
    ({"at": "yesterday"}, "event_time cannot be read as a time"),
    ({"at": "1969-12-31T23:59:59Z"}, "event_time is before 1970"),
    ({"at": "2024-01-01T00:06:00.000001Z"}, "event_time is more than 300 s after ingest_time"),
    ({"seen": None}, "ingest_time is missing"),
    ({"kind": "paymnt"}, "event type paymnt is not declared"),
    ({"kind": None}, "event type is missing"),
    ({"region": "mars"}, "region mars is not declared"),
    ({"cents": 1.5}, "amount_cents is not a whole number"),
    ({"cents": None}, "amount_cents is missing"),
    ({"cents": 1e17}, "amount_cents is beyond 2**53"),
]


def test_every_bad_row_goes_to_the_dead_letters_with_its_reason_and_the_good_ones_are_kept(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = [EVENT, *(EVENT | change for change, _ in BAD_ROWS), EVENT | {"at": "2024-01-01T00:06:00Z", "id": "e9"}]
    path = write_jsonl(tmp_path / "events.jsonl", rows)
    report = run(workspace, FLAT, path)
    assert dead_letters(workspace) == [(row, reason) for row, (_, reason) in enumerate(BAD_ROWS, start=1)]
    assert report.bad["entity_id is missing"] == 2
    assert sum(report.bad.values()) == len(BAD_ROWS)
    assert read_rows(workspace, "subscription", "user", "event_id") == [("e1",), ("e9",)]
    letter = pl.read_delta(str(workspace.dead_letters)).sort("row").row(4, named=True)
    assert (letter["source"], letter["entity"]) == (str(path), "user")
    assert letter["recorded_at"] == datetime.fromtimestamp(NOW_US // 1_000_000, UTC)
    assert json.loads(letter["content"])["at"] == "yesterday"


def test_texts_that_are_no_numbers_are_bad_where_a_value_or_a_filter_needs_a_number(
    workspace: Workspace, tmp_path: Path
) -> None:
    lines = [LINES[0], ("5", "9", "2010-06-01 10:00", "many", "1.00", "Italy"),
             ("6", "9", "2010-06-01 10:00", "1", "free", "Italy"),
             ("6", "9", "2010-06-01 10:00", "1", "1.00", "Italy")]  # fmt: skip
    report = run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", lines))
    # A bad line takes the rest of its invoice with it.
    assert dead_letters(workspace) == [
        (1, "a number that 'where' asks for cannot be read"), (2, "amount_cents is not a number"),
        (3, "another row of the same event is bad"),
    ]  # fmt: skip
    assert report.events == {"order": 1}


def test_a_local_time_that_does_not_exist_or_exists_twice_is_bad(workspace: Workspace, tmp_path: Path) -> None:
    lines = [
        (f"{number}", "9", time, "1", "1.00", "Italy")
        for number, time in enumerate(("2010-03-28 01:30", "2010-10-31 01:30", "2010-07-01 01:30"))
    ]
    run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", lines))
    what = "does not exist or is ambiguous in Europe/London"
    assert dead_letters(workspace) == [
        (0, f"event_time {what}"),
        (0, f"valid_from {what}"),
        (1, f"event_time {what}"),
        (1, f"valid_from {what}"),
    ]


def test_a_repeated_event_id_is_kept_in_the_log_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    first = run(workspace, FLAT, write_jsonl(tmp_path / "a.jsonl", [EVENT, EVENT]))
    second = run(workspace, FLAT, write_jsonl(tmp_path / "b.jsonl", [EVENT | {"seen": "2024-01-01T00:02:00Z"}]))
    assert (first.duplicates, second.duplicates) == (1, 1)
    assert len(read_rows(workspace, "subscription", "user", "event_id")) == 3


def test_importing_a_file_again_under_any_name_adds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", [*LINES, ("", "9", "2010-06-01 10:00", "1", "1", "")]))
    (tmp_path / "copy.csv").write_bytes((tmp_path / "lines.csv").read_bytes())
    before = sorted(str(path) for path in workspace.root.rglob("*.parquet"))
    assert run(workspace, INVOICES, tmp_path / "copy.csv", tmp_path / "lines.csv") == Report(files_already_there=1)
    assert sorted(str(path) for path in workspace.root.rglob("*.parquet")) == before
    late = write_csv(tmp_path / "more.csv", [("7", "8", "2010-12-09 09:00", "1", "1.00", "Italy")])
    report = run(workspace, INVOICES, tmp_path / "lines.csv", late)
    assert (report.files, report.files_already_there, report.events) == (1, 1, {"order": 1})


@pytest.mark.parametrize("table", ["dead_letters", "profile", "events"])
def test_a_run_that_died_before_a_table_is_completed_and_not_doubled_by_the_next(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    path = write_csv(tmp_path / "lines.csv", [*LINES, ("", "9", "2010-06-01 10:00", "1", "1.00", "Italy")])
    commit = importing._commit

    def die_before(task: importing.Import, planned: Any) -> None:
        if planned.kind == table:
            raise KeyboardInterrupt
        commit(task, planned)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_commit", die_before)
        with pytest.raises(KeyboardInterrupt):
            run(workspace, INVOICES, path)
    for _ in range(2):
        run(workspace, INVOICES, path)
        assert read_rows(workspace, "retail", "customer", "event_id") == [("1",), ("4",), ("C2",)]
        assert dead_letters(workspace) == [(6, "event_id is missing")]
        assert DeltaTable(workspace.profile("address")).to_pyarrow_table().num_rows == 3


def test_a_file_imported_under_another_mapping_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "lines.csv", LINES)
    run(workspace, INVOICES, path)
    with pytest.raises(
        EventLogError, match=r"^source was already imported differently: import:[0-9a-f]{64} in .*; next: import it"
    ):
        run(workspace, INVOICES.replace("3600", "60"), path)
    assert len(read_rows(workspace, "retail", "customer", "event_id")) == 3


def test_an_older_file_is_refused_before_anything_is_written_unless_it_is_taken_late(
    workspace: Workspace, tmp_path: Path
) -> None:
    run(workspace, FLAT, write_jsonl(tmp_path / "new.jsonl", [EVENT]))
    old = write_jsonl(tmp_path / "old.jsonl", [EVENT | {"id": "e0", "seen": "2024-01-01T00:00:30Z"}, EVENT | {"user": None}])
    with pytest.raises(EventLogError, match="^events are older than the log: "):
        run(workspace, FLAT, old)
    assert not workspace.dead_letters.joinpath("_delta_log").exists()
    run(workspace, FLAT, old, late=True)
    assert read_rows(workspace, "subscription", "user", "event_id", "ingest_time") == [
        ("e0", datetime(2024, 1, 1, 0, 1, tzinfo=UTC)), ("e1", datetime(2024, 1, 1, 0, 1, tzinfo=UTC)),
    ]  # fmt: skip


def test_files_of_one_command_are_ordered_together(workspace: Workspace, tmp_path: Path) -> None:
    new = write_jsonl(tmp_path / "new.jsonl", [EVENT])
    old = write_jsonl(tmp_path / "old.jsonl", [EVENT | {"id": "e0", "seen": "2024-01-01T00:00:30Z"}])
    assert run(workspace, FLAT, new, old).files == 2


def refuse(workspace: Workspace, mapping: str, path: Path) -> str:
    with pytest.raises(PlumblineError) as caught:
        run(workspace, mapping, path)
    assert not workspace.root.exists()
    return str(caught.value)


def test_structural_mistakes_stop_everything_in_one_line_before_anything_is_written(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "lines.csv", LINES)
    assert refuse(workspace, INVOICES.replace("country: country", "country: land"), path) == (
        "column is not in the file: 'land' of mapping mapping.yaml; expected one of invoice, customer, at, quantity, "
        f"price, country; got no such column in {path}; next: correct the mapping or pass the file it is for"
    )
    assert refuse(workspace, INVOICES.replace("time_zone: Europe/London\n", ""), path) == (
        f"time zone is missing: column 'at' of {path}; expected time_zone in the mapping; got times without a zone, "
        "2010-06-01 10:00; next: add time_zone (UTC, Europe/London) to mapping.yaml"
    )
    assert refuse(workspace, INVOICES.replace("type: order", "type: ordr"), path).startswith(
        "mapping does not fit: mapping.yaml: events[0].type;"
    )
    assert refuse(workspace, INVOICES, tmp_path / "none.csv") == (
        f"file cannot be imported: {tmp_path / 'none.csv'}; expected a file; got no such file; "
        "next: correct the file or its name"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b"PAR1 cut"), ("a.parquet", b""), ("a.csv", b"a,b\n1,2,3\n"),
     ("a.jsonl", b'{"a": 1}\n{"a"'), ("a.csv.gz", b"\x1f\x8b\x08 cut"), ("a.txt", b"x")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_gives_one_line(workspace: Workspace, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceFileError, match="^file cannot be imported: ") as caught:
        run(workspace, INVOICES, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not workspace.root.exists()


def test_a_file_with_a_header_alone_gives_no_events(workspace: Workspace, tmp_path: Path) -> None:
    assert run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", [])).events == {}
    assert run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", [])).files_already_there == 1


def test_a_corrupted_profile_table_stops_the_import_before_the_log_is_touched(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, INVOICES, write_csv(tmp_path / "lines.csv", LINES))
    next(workspace.profile("address").rglob("*.parquet")).unlink()
    with pytest.raises(EventLogError, match="^Delta table cannot be read: "):
        run(workspace, INVOICES, write_csv(tmp_path / "more.csv", [("9", "8", "2011-12-09 09:00", "1", "1.00", "Italy")]))
    assert len(read_rows(workspace, "retail", "customer", "event_id")) == 3


def test_a_value_of_a_type_that_cannot_serve_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    pl.DataFrame([EVENT | {"cents": [1, 2]}]).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(MappingError) as caught:
        run(workspace, FLAT, tmp_path / "e.parquet")
    assert str(caught.value) == (
        "column cannot be used: 'cents'; expected amount_cents: a column of numbers; got a column of List(Int64); "
        "next: map another column, or state how to read this one"
    )
