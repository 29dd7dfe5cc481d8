"""The control database as rooms share it: each with tables and a layout of its own, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, func, insert, select

from features.control_database import Schema, is_absent, open_session
from features.errors import ControlDatabaseError, StoreUnavailable
from features.workspace import Workspace

METADATA = MetaData()
NOTES = Table("notes", METADATA, Column("id", Integer, primary_key=True), Column("text", String))


def migrate(connection: Connection, stored: int) -> None:
    connection.execute(insert(NOTES).values(text=f"from {stored}"))


SCHEMA = Schema(METADATA, "notes_schema", 1, migrate)


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path / "workspace", control_url)


def texts(workspace: Workspace, schema: Schema = SCHEMA) -> list[str]:
    with open_session(workspace, schema) as session:
        return list(session.scalars(select(NOTES.c.text).order_by(NOTES.c.id)))


def test_tables_are_made_once_however_many_open_the_database_first(workspace: Workspace) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: texts(workspace), range(6)))
    assert found == [["from 0"]] * 6


def test_an_older_layout_is_migrated_once_and_a_newer_one_refused(workspace: Workspace) -> None:
    assert texts(workspace) == ["from 0"]
    newer = replace(SCHEMA, version=2)
    assert texts(workspace, newer) == texts(workspace, newer) == ["from 0", "from 1"]
    with pytest.raises(ControlDatabaseError, match="expected schema 1 or older; got schema 2"):
        texts(workspace)


def test_what_is_not_committed_is_not_there(workspace: Workspace) -> None:
    with open_session(workspace, SCHEMA, write=True) as session:
        session.execute(insert(NOTES).values(text="forgotten"))
    assert texts(workspace) == ["from 0"]


def test_sessions_that_write_run_one_after_the_other(workspace: Workspace) -> None:
    texts(workspace)

    def add(number: int) -> None:
        with open_session(workspace, SCHEMA, write=True) as session:
            known = session.scalar(select(func.count()).select_from(NOTES))
            session.execute(insert(NOTES).values(text=str(known)))
            session.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))
    assert texts(workspace) == ["from 0", *map(str, range(1, 9))]


def test_a_lock_is_waited_for_as_long_as_the_caller_says(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert is_absent(workspace)
    texts(workspace)
    holder = sqlite3.connect(workspace.control_database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    started = time.process_time()
    with (
        pytest.raises(StoreUnavailable, match=r"expected a lock within 0\.2 s"),
        open_session(workspace, SCHEMA, timeout_s=0.2),
    ):
        pass
    assert time.process_time() - started < 5
    holder.execute("ROLLBACK")
    holder.close()
    assert texts(workspace) == ["from 0"]
