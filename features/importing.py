"""Brings files into the event log, the profiles and the dead letters: all checked first, then written, each file once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from features import delta
from features.catalogs import load_catalog
from features.declarations import Catalog
from features.erasure import Markers, keep_later
from features.events import commit_events, count_repeats, find_markers, open_log, stamp_events
from features.extraction import Extracted, extract
from features.mapping import Mapping
from features.mapping_file import mapping_path, parse_mapping, read_document
from features.profiles import check_profiles, commit_profiles, open_profile
from features.purging import names_any
from features.rows import DEAD_LETTER
from features.source_files import ROW, SourceFile, read_source
from features.workspace import Workspace


@dataclass
class Report:
    """What an import did; counts of rows are of this run alone."""

    files: int = 0
    files_already_there: int = 0
    rows: int = 0
    filtered: int = 0
    duplicates: int = 0
    erased: int = 0
    """Rows of before their entity's erasure; they are in no table, and in no dead letter either."""
    events: dict[str, int] = field(default_factory=dict)
    profiles: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Import:
    """Files and how they are mapped; ``now_us`` is the time recorded with bad rows."""

    workspace: Workspace
    catalog: Catalog
    mapping: Mapping
    now_us: int
    late: bool = False


Files = list[tuple[SourceFile, Extracted]]


@dataclass(frozen=True)
class _Append:
    """Rows of one table that are checked and wait to be written."""

    kind: str
    name: str
    rows: pa.Table
    sources: dict[str, int]
    erased: int = 0


def prepare_import(workspace: Workspace, mapping: str, *, catalog: str | None, now_us: int, late: bool = False) -> Import:
    """Load a mapping (a path or a shipped name) against its catalog (or ``catalog``).

    Raises:
        MappingError, DeclarationError: one line saying what does not fit.
    """
    path = mapping_path(mapping)
    document = read_document(path)
    loaded = load_catalog(catalog or document["catalog"])
    return Import(workspace, loaded, parse_mapping(document, loaded, path.name), now_us, late)


def import_files(task: Import, paths: Iterable[Path]) -> Report:
    """Import files as one batch; see ``import_sources``."""
    return import_sources(task, [(source, extract(source, task.mapping, task.catalog)) for source in map(read_source, paths)])


def import_sources(task: Import, extracted: Files) -> Report:
    """Write what the files gave, in one commit a table: dead letters, then profiles, then logs.

    Every commit records the files' hashes, so that a run that ended between two tables is completed by the next one,
    and a file that is there already adds nothing.

    Raises:
        EventLogError: a table is corrupted, a file was imported under another mapping, or events are older than the log.
        TemporaryError: another writer holds one of the tables.
    """
    files = list({source.sha256: (source, found) for source, found in extracted}.values())
    with ExitStack() as locks:
        for folder in _folders(task):
            locks.enter_context(delta.writing(folder))
        appends = [*_plan_dead_letters(task, files), *_plan_profiles(task, files), *_plan_events(task, files)]
        report = _report(task, files, appends)
        for planned in appends:
            _commit(task, planned)
    return report


def _folders(task: Import) -> list[Path]:
    """Folders of all tables that the mapping may write, in one order, so that two imports never wait for each other."""
    profiles = {task.workspace.profile(block.profile) for block in task.mapping.profiles}
    logs = {task.workspace.events(block.entity) for block in task.mapping.events}
    return sorted({task.workspace.dead_letters} | profiles | logs)


def _versions(task: Import, files: Files, name: str) -> dict[str, tuple[str, int]]:
    """Of content hash -> (recorded name, version): the mapping's digest, and what the side files held if it joins any."""
    versions = {}
    for source, found in files:
        version = task.mapping.digest
        if found.sides:
            digest = hashlib.sha256(f"{version:x}{''.join(found.sides)}".encode()).digest()
            version = int.from_bytes(digest[:8], "big") >> 2
        versions[source.sha256] = (name.format(sha256=source.sha256, version=version), version)
    return versions


def _pending(table: DeltaTable | None, versions: dict[str, tuple[str, int]], path: Path) -> dict[str, tuple[str, int]]:
    """Those of ``versions`` that the table has not recorded."""
    return {sha256: entry for sha256, entry in versions.items() if not delta.has_applied(table, *entry, path)}


def _plan_dead_letters(task: Import, files: Files) -> list[_Append]:
    path = task.workspace.dead_letters
    # Files of several mappings share this table, so the mapping is part of the recorded name.
    pending = _pending(delta.open_table(path), _versions(task, files, "import:{sha256}:{version:x}"), path)
    erased = {entity: frozenset(_markers(task, entity).entity_ids) for entity in task.catalog.entities}
    kept = {source.sha256: _of_the_living(found.bad, erased) for source, found in files}
    frames = [
        kept[source.sha256].select(pl.lit(str(source.path)).alias("source"), "row", "entity", "reason", "content",
                         pl.lit(task.now_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("recorded_at"))
        for source, found in files if source.sha256 in pending and found.bad.height
    ]  # fmt: skip
    if not frames:
        return []
    rows = _to_arrow(pl.concat(frames), DEAD_LETTER)
    given = sum(found.bad.height for source, found in files if source.sha256 in pending)
    return [_Append("dead_letters", "dead_letters", rows, dict(pending.values()), given - rows.num_rows)]


def _of_the_living(bad: pl.DataFrame, erased: dict[str, frozenset[str]]) -> pl.DataFrame:
    """Bad rows without those that name somebody who was erased: a dead letter would keep what was to go."""
    if not any(erased.values()):
        return bad
    rows = zip(bad["content"], bad["entity"], strict=True)
    named = [names_any(content, erased.get(entity, frozenset())) for content, entity in rows]
    return bad.filter(~pl.Series(named, dtype=pl.Boolean))


def _plan_profiles(task: Import, files: Files) -> list[_Append]:
    planned = []
    for name in sorted({block.profile for block in task.mapping.profiles}):
        stored = open_profile(task.workspace, task.catalog, name)
        pending = _pending(stored, _versions(task, files, "import:{sha256}"), task.workspace.profile(name))
        frames = [found.profiles[name] for source, found in files if source.sha256 in pending and name in found.profiles]
        if frames:
            given = pl.concat(frames)
            kept = keep_later(given, _markers(task, task.catalog.profile(name).entity), "valid_from")
            rows = check_profiles(task.catalog, name, kept.to_arrow(compat_level=pl.CompatLevel.oldest()))
            planned.append(_Append("profile", name, rows, dict(pending.values()), given.height - kept.height))
    return planned


def _plan_events(task: Import, files: Files) -> list[_Append]:
    planned = []
    for entity in sorted({block.entity for block in task.mapping.events}):
        log = open_log(task.workspace, task.catalog, entity)
        pending = _pending(log, _versions(task, files, "import:{sha256}"), task.workspace.events(entity))
        frames = [
            found.events[entity].drop(ROW) for source, found in files if source.sha256 in pending and entity in found.events
        ]
        if frames:
            given = pl.concat(frames)
            kept = keep_later(given, _markers(task, entity), "event_time")
            table = kept.to_arrow(compat_level=pl.CompatLevel.oldest())
            stamped = stamp_events(task.workspace, task.catalog, entity, table, late=task.late)
            planned.append(_Append("events", entity, stamped, dict(pending.values()), given.height - kept.height))
    return planned


def _markers(task: Import, entity: str) -> Markers:
    """Whom an old file must not bring back."""
    return find_markers(task.workspace, task.catalog, entity)


def _report(task: Import, files: Files, appends: list[_Append]) -> Report:
    touched = {name.split(":")[1] for planned in appends for name in planned.sources}
    report = Report(files=len(touched), files_already_there=len(files) - len(touched))
    for source, found in files:
        if source.sha256 in touched:
            report.rows += source.frame.height
            report.filtered += found.filtered
    for planned in appends:
        report.erased += planned.erased
        if planned.kind == "events":
            report.events |= _counts(planned.rows, "event_type")  # an event type belongs to one log
            report.duplicates += count_repeats(task.workspace, task.catalog, planned.name, planned.rows)
        elif planned.kind == "profile":
            report.profiles[planned.name] = planned.rows.num_rows
        else:
            report.bad = _counts(planned.rows, "reason")
    return report


def _counts(rows: pa.Table, column: str) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in rows[column].value_counts().to_pylist()}


def _commit(task: Import, planned: _Append) -> None:
    if planned.kind == "events":
        commit_events(task.workspace, task.catalog, planned.name, planned.rows, planned.sources)
    elif planned.kind == "profile":
        commit_profiles(task.workspace, task.catalog, planned.name, planned.rows, planned.sources)
    else:
        path = task.workspace.dead_letters
        table = delta.open_table(path) or delta.create_table(path, DEAD_LETTER, [], {})
        delta.append(table, planned.rows, planned.sources)


def _to_arrow(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    return frame.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
