"""The drift detector: takes CloudEvents in, keeps their rows window by window, and judges each window once.

A reply's scores are held against those of the version's training reference; a request's features too, where the reference
knows them by name. Plumbline's own requests name entities and no features: those are judged from prediction rows (``watch``).
In the log of verdicts, its monitors end with the side that they look at: ``drift.stable.score.replies``.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from features.errors import PermanentError, PlumblineError
from features.layout import US_PER_S
from features.reference import REFERENCE_FILE
from features.workspace import Workspace
from monitoring.drift.bodies import Body, Columns, read_body
from monitoring.drift.judge import Window, judge_window
from monitoring.drift.records import JudgedWindow, record_judgement, write_judged
from monitoring.drift.reference import TRAINING, Reference, read_training_reference, stack
from monitoring.drift.sample import Floats, Sample
from monitoring.drift.settings import STABLE, DriftSettings
from monitoring.drift.standing import keep_standing, let_stand
from monitoring.drift.windows import Key, Record, WindowStore, key_of, read_window
from monitoring.errors import UnreadableBody
from monitoring.revisions import STABLE as STABLE_REVISION
from monitoring.revisions import Revisions, read_revisions

SIDES: Final = ("requests", "replies")
REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"
ENTITY: Final = "entity_id"
FLAGS: Final = ("cold", "degraded")
NOT_FEATURES: Final = ("log_partition", "log_offset", "age_s", "model_version")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
OK: Final = "200"
KEY_FILE: Final = "key"
KEY_BYTES: Final = 16


class RefusedEvent(PermanentError):
    """An event lacks what the detector needs, or its body cannot be read."""


@dataclass(frozen=True)
class Taken:
    """What became of an event: whether its rows were kept, and the windows that it closed, judged."""

    kept: bool
    judged: tuple[JudgedWindow, ...] = ()


class Detector:
    """Windows of events and their verdicts; ``receive`` may be called from any thread."""

    def __init__(
        self, workspace: Workspace, settings: DriftSettings, *, models: Mapping[str, str] | None = None,
        report: Callable[[JudgedWindow], None] = lambda judged: None,
        report_error: Callable[[Path, Exception], None] = lambda path, error: None,
    ) -> None:  # fmt: skip
        """Take up what an earlier process left.

        Args:
            workspace: holds windows, verdicts, and models' training references.
            models: model by service, where a service is not called as its model.
            report: told of each judged window, once it is on disk.
            report_error: told of a window that could not be judged, and why.
        """
        self._workspace = workspace
        self._settings = settings
        self._models = dict(models or {})
        self._report = report
        self._report_error = report_error
        self._lock = threading.Lock()
        self._judging = threading.Lock()
        self._revisions: dict[str, Revisions] = {}
        self._store = WindowStore(workspace.drift_windows(), settings, is_stable=self._is_stable)
        self._hash_key = read_key(workspace.drift_windows() / KEY_FILE)
        self._references: dict[Key, Reference | None] = {}

    def receive(self, headers: Mapping[str, str], body: bytes, now_us: int) -> Taken:
        """Take in one event; when this returns its rows are kept.

        Args:
            headers: of the HTTP request, lower case.
            now_us: UTC microseconds.

        Raises:
            RefusedEvent: it is no event of an inference request or response, or its body cannot be read.
            OSError: the disk is full or fails.
        """
        kind, key, event_id = _read_attributes(headers)
        if headers.get("ce-responsestatus", OK) != OK or "ce-retriedon" in headers:
            return Taken(kept=False)  # a failure says nothing about the world; errors have a monitor of their own
        try:
            content = read_body(body)
        except UnreadableBody as error:
            raise RefusedEvent(str(error)) from error
        if content.model_version and not _NAME.match(content.model_version):
            raise RefusedEvent(f"not a model version: {content.model_version[:80]!r}")
        key = replace(key, version=content.model_version or self._version(key))
        columns = _choose(content, kind, self._hash_key)
        if not columns or not content.rows:
            return Taken(kept=False)
        with self._lock:
            kept = self._store.append(key, Record(event_id, now_us, content.rows, columns))
            closed = self._store.close_due(now_us, key)
        return Taken(kept, tuple(judged for path in closed for judged in self._try_to_judge(path, now_us)))

    def tick(self, now_us: int) -> tuple[JudgedWindow, ...]:
        """Close windows whose time has come, judge whatever is closed, and forget what is old.

        Raises:
            StoreUnavailable: the control database does not answer; windows stay closed until it does.
        """
        for service in sorted(path.name for path in self._workspace.drift_windows().iterdir() if path.is_dir()):
            revisions = self._revisions[service] = read_revisions(self._workspace, service)
            for side in SIDES:
                keep_standing(self._workspace, service, side, revisions, self._settings, now_us)
        with self._lock:
            self._store.close_due(now_us)
            waiting = self._store.list_closed()
        judged = tuple(each for path in waiting for each in self._try_to_judge(path, now_us))
        with self._lock:
            self._store.expire(now_us - self._settings.longest_window_s * US_PER_S)
        return judged

    def open_rows(self) -> dict[Key, int]:
        """Rows seen of each open window."""
        with self._lock:
            return self._store.open_rows()

    def close(self) -> None:
        """Leave the windows to the next process."""
        with self._lock:
            self._store.close()

    def _try_to_judge(self, path: Path, now_us: int) -> list[JudgedWindow]:
        """A window that cannot be judged stays closed and is tried again with every tick; its event has been taken all the
        same."""
        try:
            return self._judge(path, now_us)
        except (PlumblineError, OSError) as error:
            self._report_error(path, error)
            return []

    def _judge(self, path: Path, now_us: int) -> list[JudgedWindow]:
        """Judge a closed window beside every reference there is; verdicts are on disk before the window counts as judged."""
        with self._judging:
            if not path.exists():
                return []  # another thread has been faster
            key, records = key_of(path), list(read_window(path))
            sample = build_sample(records)
            start_us, end_us = records[0].at_us, records[-1].at_us + 1
            window = Window(key.subject, start_us, end_us, sample, sum(record.rows for record in records))
            found = []
            for reference in self._find_references(key, window):
                judgement = judge_window(window, restrict(reference, sample), self._settings)
                judged = record_judgement(judgement, self._model_of(key), key.side, key.version)
                write_judged(self._workspace.drift_verdicts(), judged)
                if not self._of(key.service).is_gone(key.revision):  # of what is served no more, nothing stands
                    let_stand(self._workspace, judged, self._settings, now_us)
                found.append(judged)
            with self._lock:
                self._store.settle(path)
        for judged in found:
            self._report(judged)
        return found

    def _find_references(self, key: Key, window: Window) -> list[Reference]:
        references, revisions = [self._training_reference(key)], self._of(key.service)
        if not revisions.was_stable(key.revision):
            names = sorted({revisions.stable, *revisions.formerly} - {revisions.canary})
            with self._lock:
                beside = [row for name in names
                          for row in self._store.rows_between(key, name, window.start_us, window.end_us)]  # fmt: skip
            importance = references[0].importance
            references.append(Reference(STABLE, build_sample(beside), importance))
        return references

    def _training_reference(self, key: Key) -> Reference:
        if key not in self._references:
            path = self._workspace.root / "models" / self._model_of(key) / key.version / REFERENCE_FILE
            # Without one every verdict says "too few rows", which is what is known.
            self._references[key] = read_training_reference(path) if path.is_file() else None
        return self._references[key] or Reference(TRAINING, build_sample([]))

    def _of(self, service: str) -> Revisions:
        """A service's revisions as of the last tick."""
        if service not in self._revisions:
            self._revisions[service] = read_revisions(self._workspace, service)
        return self._revisions[service]

    def _is_stable(self, key: Key) -> bool:
        # Events come in while the control database is away, too: until the first tick the name has to tell.
        return self._revisions.get(key.service, Revisions()).was_stable(key.revision)

    def _model_of(self, key: Key) -> str:
        return self._models.get(key.service, key.service)

    def _version(self, key: Key) -> str:
        """Version of a revision whose events do not name it, as requests do not: that of its replies, if it is but one."""
        with self._lock:
            known = {each.version for each in self._store.open_rows() if each.subject == key.subject and each.version}
        return known.pop() if len(known) == 1 else ""


def restrict(reference: Reference, sample: Sample) -> Reference:
    """A reference without features where the window's events carry none, as those of entity ids do."""
    if sample.feature_names:
        return reference
    return replace(reference, sample=reference.sample.select(()))


def build_sample(records: list[Record]) -> Sample:
    """Rows of events as a sample, each entity once where they name entities."""
    with_rows = [record for record in records if record.columns]
    names = sorted({name for record in with_rows for name in record.columns})
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for record in with_rows:
        rows = max(len(values) for values in record.columns.values())
        for name in names:
            columns[name] += record.columns.get(name, [None] * rows)
    at_us = np.repeat(
        np.array([record.at_us for record in with_rows], np.int64),
        [max(len(values) for values in record.columns.values()) for record in with_rows],
    )
    features = {name: values for name, values in columns.items() if name not in (ENTITY, "score", *FLAGS)}
    texts = {name for name, values in features.items() if any(isinstance(value, str) for value in values)}
    numbers = [name for name in features if name not in texts]
    sample = Sample(
        numbers=stack([_to_floats(features[name]) for name in numbers], len(at_us)),
        names=tuple(numbers),
        at_us=at_us,
        categories={
            name: pa.array([None if v is None else str(v) for v in features[name]], pa.string()) for name in sorted(texts)
        },
        score=_to_floats(columns["score"]) if "score" in columns else None,
        flags={name: np.array([bool(value) for value in columns[name]], np.bool_) for name in FLAGS if name in columns},
    )
    if ENTITY not in columns or not len(at_us):
        return sample
    _, first = np.unique(np.array(columns[ENTITY], dtype=str), return_index=True)
    return sample.take(np.sort(first))


def _read_attributes(headers: Mapping[str, str]) -> tuple[str, Key, str]:
    kind, event_id, service = (headers.get(name, "") for name in ("ce-type", "ce-id", "ce-inferenceservicename"))
    revision = headers.get("ce-endpoint") or STABLE_REVISION
    if kind not in (REQUEST, RESPONSE) or not event_id or not _NAME.match(service) or not _NAME.match(revision):
        raise RefusedEvent(
            f"not an event of an inference request or response: ce-type {kind!r}, ce-id {event_id!r}, service {service!r}"
        )
    return kind, Key(service, revision, "", "requests" if kind == REQUEST else "replies"), event_id


def read_key(path: Path) -> bytes:
    """The key of this folder's hashes of entity ids, made when first asked for: without it nobody can tell whose a row is."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.touch(mode=0o600)
        partial.write_bytes(os.urandom(KEY_BYTES))
        partial.rename(path)
    return path.read_bytes()


def _choose(content: Body, kind: str, hash_key: bytes) -> Columns:
    """What is worth keeping: a reply's score and flags, a request's features; of an entity's id only a keyed hash."""
    columns = {name: values for name, values in content.columns.items() if name not in NOT_FEATURES}
    if kind == RESPONSE:
        columns = {name: columns[name] for name in (ENTITY, "score", *FLAGS) if name in columns}
        if "score" not in columns:
            return {}
    if ENTITY in columns:
        columns[ENTITY] = [
            hashlib.blake2b(str(value).encode(errors="replace"), digest_size=8, key=hash_key).hexdigest()
            for value in columns[ENTITY]
        ]
    return columns if set(columns) - {ENTITY} else {}


def _to_floats(values: list[Any]) -> Floats:
    return np.array([np.nan if value is None or isinstance(value, str) else value for value in values], np.float32)


def _to_strings(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())
