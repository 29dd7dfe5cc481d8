"""Registered model versions: rows of the control database, artifacts beside it.

A version exists once its row is committed, and its folder is complete before that. Versions of a model count from 1 and are
never reused, not even if a registration failed after its folder had been made.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Connection, Engine, UniqueConstraint, create_engine, event, func, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from features.errors import StoreUnavailable, explain
from features.workspace import Workspace
from models.errors import VersionError

LOCK_TIMEOUT_S: Final = 30


@dataclass(frozen=True)
class NewVersion:
    """What is known of a model when it is registered.

    Attributes:
        model: name of its spec.
        created_at_us: UTC microseconds.
        run_id: the run record that made it.
        blessed, reason: the gate's decision.
        view_key, view_hash, graph_hash: what its features are pinned to.
        metrics: headline figures.
    """

    model: str
    created_at_us: int
    run_id: str
    blessed: bool
    reason: str
    view_key: str
    view_hash: str
    graph_hash: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ModelVersion(NewVersion):
    """A registered version; ``path`` is the folder of its artifacts."""

    version: int
    path: Path


class _Base(DeclarativeBase):
    """Tables of the control database that this room owns."""


class _Row(_Base):
    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    created_at_us: Mapped[int] = mapped_column(BigInteger)
    run_id: Mapped[str]
    path: Mapped[str]
    blessed: Mapped[bool]
    reason: Mapped[str]
    view_key: Mapped[str]
    view_hash: Mapped[str]
    graph_hash: Mapped[str]
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


def register(workspace: Workspace, new: NewVersion, artifacts: Path) -> ModelVersion:
    """Copy the artifacts into the workspace and commit the next version of the model, both or neither.

    Args:
        workspace: its control database is made if there is none.
        new: facts of the version.
        artifacts: folder whose content is copied.
    Raises:
        VersionError: there are no artifacts.
        StoreUnavailable: another process held the database for too long.
    """
    if not artifacts.is_dir():
        raise VersionError(
            explain(
                "model has no artifacts",
                which=f"{new.model} of run {new.run_id}",
                expected=f"a folder {artifacts}",
                got="none",
                next_step="export the model first",
            )
        )
    folder = workspace.model(new.model, 0).parent
    folder.mkdir(parents=True, exist_ok=True)
    # The long copy happens before the database is locked; under the lock there is only a rename on one file system.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as scratch:
        copied = Path(scratch) / "artifacts"
        shutil.copytree(artifacts, copied)
        with _session(workspace) as session:
            version = _next_version(session, new.model, folder)
            path = workspace.model(new.model, version)
            facts = {name: getattr(new, name) for name in NewVersion.__dataclass_fields__}
            session.add(_Row(**facts, version=version, path=str(path.relative_to(workspace.root))))
            session.flush()
            copied.rename(path)
            session.commit()
    return ModelVersion(**facts, version=version, path=path)


def load(workspace: Workspace, model: str, version: int | None = None, *, require_blessed: bool = True) -> ModelVersion:
    """A version of a model; the newest blessed one where ``version`` is None.

    Raises:
        VersionError: there is no such version, its files are gone, or it is not blessed though it must be.
    """
    if version is None:
        newest = newest_blessed(workspace, model)
        if newest is not None:
            return newest
        known = list_versions(workspace, model)
        raise VersionError(
            explain(
                "model has no blessed version",
                which=repr(model),
                expected="a blessed version",
                got=f"{len(known)} versions, none blessed" if known else "no version at all",
                next_step=f"train it: plumb pipelines run {model}",
            )
        )
    found = next((entry for entry in list_versions(workspace, model) if entry.version == version), None)
    if found is None:
        known = list_versions(workspace, model)
        raise VersionError(
            explain(
                "model version does not exist",
                which=f"{model} version {version}",
                expected=f"one of {', '.join(str(entry.version) for entry in known) or 'none registered'}",
                got=str(version),
                next_step="list them: plumb models list",
            )
        )
    if require_blessed and not found.blessed:
        raise VersionError(
            explain(
                "model version is not blessed",
                which=f"{model} version {version}",
                expected="a blessed version",
                got=f"not blessed: {found.reason}",
                next_step="ask for a blessed version: plumb models list",
            )
        )
    return _present(found)


def newest_blessed(workspace: Workspace, model: str) -> ModelVersion | None:
    """The blessed version with the highest number, None where there is none.

    Raises:
        VersionError: its files are gone.
    """
    blessed = [entry for entry in list_versions(workspace, model) if entry.blessed]
    return _present(blessed[0]) if blessed else None


def list_versions(workspace: Workspace, model: str | None = None) -> list[ModelVersion]:
    """Versions of a model, or of all models, by name, the newest first.

    Raises:
        VersionError: the control database cannot be read.
    """
    if not workspace.control_database.exists():
        return []
    query = select(_Row).order_by(_Row.model, _Row.version.desc())
    if model is not None:
        query = query.where(_Row.model == model)
    with _session(workspace) as session:
        return [_as_version(workspace, row) for row in session.scalars(query)]


@contextmanager
def _session(workspace: Workspace) -> Iterator[Session]:
    database = workspace.control_database
    database.parent.mkdir(parents=True, exist_ok=True)
    engine = _open_engine(database)
    try:
        with engine.begin() as connection:
            _Base.metadata.create_all(connection)
        with Session(engine) as session:
            yield session
    except OperationalError as error:
        raise StoreUnavailable(
            explain("control database did not answer", which=str(database), expected=f"a lock within {LOCK_TIMEOUT_S} s",
                    got=str(error.orig),
                    next_step="try again once the other process is done")
        ) from error  # fmt: skip
    except DatabaseError as error:
        raise VersionError(
            explain("control database cannot be read", which=str(database), expected="an SQLite database of Plumbline",
                    got=str(error.orig),
                    next_step="restore it or move it away")
        ) from error  # fmt: skip
    finally:
        engine.dispose()


def _open_engine(database: Path) -> Engine:
    """SQLite with real transactions: each takes the write lock when it begins, so that numbers are given out one by one."""
    engine = create_engine(f"sqlite:///{database}", poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _leave_transactions_alone(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _next_version(session: Session, model: str, folder: Path) -> int:
    newest = session.scalar(select(func.max(_Row.version)).where(_Row.model == model)) or 0
    folders = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    return int(max([newest, *folders])) + 1


def _as_version(workspace: Workspace, row: _Row) -> ModelVersion:
    facts = {name: getattr(row, name) for name in NewVersion.__dataclass_fields__}
    return ModelVersion(**facts, version=row.version, path=workspace.root / row.path)


def _present(found: ModelVersion) -> ModelVersion:
    if not found.path.is_dir():
        raise VersionError(
            explain(
                "model version has lost its files",
                which=f"{found.model} version {found.version}",
                expected=f"folder {found.path}",
                got="none",
                next_step="restore the folder or train again",
            )
        )
    return found
