"""Feature and score drift from the prediction log: windows of time over rows that servers logged whole.

Requests name entities, so what the model saw of them stands only here. A window begins with the first row after the last one of
the same revision and version; it is judged when its time is over and it has enough rows, beside training, beside the same hours
of earlier weeks, or, for a canary, beside stable. Where no row of stable comes any more, one verdict says so. What is
stable the plane says (``monitoring.revisions``): a canary that was promoted is judged as stable from then on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.layout import DAY_S, US_PER_S
from features.predictions import read_predictions
from features.reference import REFERENCE_FILE
from features.rows import PREDICTION
from features.workspace import Workspace
from monitoring.drift.judge import Judgement, Window, judge_window
from monitoring.drift.predictions import COLUMNS, FeatureNames, read_names, sample_scores, sample_whole_rows
from monitoring.drift.records import JudgedWindow, record_judgement, write_judged
from monitoring.drift.reference import WEEKS, Reference, read_training_reference
from monitoring.drift.sample import Ints, Sample, concatenate
from monitoring.drift.settings import STABLE, DriftSettings
from monitoring.drift.standing import PREDICTIONS, keep_standing, let_stand
from monitoring.revisions import Revisions, read_revisions
from monitoring.verdict_log import retire

FLUSH_S: Final = 10
"""Servers write what they answered within a second or so; a window is not judged sooner than this after its end."""
NO_ROWS: Final = PREDICTION.empty_table().select(COLUMNS)
MINUTE_US: Final = 60 * US_PER_S
WEEK_US: Final = 7 * DAY_S * US_PER_S


class Group(NamedTuple):
    """Rows of one revision that answered with one version."""

    revision: str
    version: int


@dataclass(frozen=True)
class _Span:
    start_us: int
    end_us: int
    empty: bool = False


class PredictionWatch:
    """Windows over one model's prediction log; for one thread."""

    def __init__(self, workspace: Workspace, model: str, settings: DriftSettings, *, service: str | None = None) -> None:
        """Go on where an earlier process stopped.

        Args:
            service: what verdicts call the subject; the model's name if left out.
        """
        self._workspace = workspace
        self._model = model
        self._settings = settings
        self._service = service or model
        self._folder = workspace.predictions(model)
        self._names: dict[int, FeatureNames] = {}
        self._training: dict[int, Reference] = {}
        self._revisions = Revisions()
        self._looked_at = -1
        self._judged_to: dict[Group, int] = {}
        self._quiet: set[Group] = set()
        self._read_progress()

    def judge_due(self, now_us: int, *, since_us: int = 0) -> Iterator[JudgedWindow]:
        """Judge every window whose time has come; each is on disk and in the log of verdicts when it is given.

        Args:
            since_us: windows of a revision that was never judged begin no sooner, UTC microseconds.

        Raises:
            EventLogError: the prediction log is damaged.
            DriftError, StoreError: a version's folder lacks its names or its reference.
            StoreUnavailable: the control database does not answer; nothing is lost by that.
        """
        self._revisions = read_revisions(self._workspace, self._service)
        keep_standing(self._workspace, self._service, PREDICTIONS, self._revisions, self._settings, now_us)
        slot = (now_us - FLUSH_S * US_PER_S) // (US_PER_S * min(self._settings.window_s, self._settings.canary_window_s))
        if slot == self._looked_at:
            return  # no window has ended since; a look reads all rows since the last one
        first = self._find_first(since_us)
        for group in sorted({*first, *self._judged_to} - (self._quiet - set(first))):
            start_us = max(self._judged_to.get(group, since_us), first.get(group, 0))
            self._quiet.discard(group)
            while (span := self._next_span(group, start_us, now_us)) is not None:
                yield from self._judge_and_write(group, span, now_us)
                start_us = span.end_us
        self._looked_at = slot

    def _judge_and_write(self, group: Group, span: _Span, now_us: int) -> Iterator[JudgedWindow]:
        revision, gone = group.revision, self._revisions.is_gone(group.revision)
        # A canary that is gone, and a version that another took the place of, are no blindness.
        quits = span.empty and (gone or not self._is_stable(revision) or self._answers(span, revision))
        for judgement in () if quits else self.judge(group, span.start_us, span.end_us):
            judged = record_judgement(judgement, self._model, PREDICTIONS, str(group.version))
            write_judged(self._workspace.drift_verdicts(), judged)
            if not gone:  # of what is served no more, nothing stands
                let_stand(self._workspace, judged, self._settings, now_us)
            yield judged
        if quits and not self._is_stable(revision):
            retire(self._workspace, f"{self._service}/{revision}", now_us)
        self._judged_to[group] = span.end_us
        if span.empty:
            self._quiet.add(group)
        self._write_progress()

    def judge(self, group: Group, start_us: int, end_us: int) -> Iterator[Judgement]:
        """One window of a revision beside every reference there is for it."""
        rows = self._read(_Span(start_us, end_us), group.revision, group.version)
        subject = f"{self._service}/{group.revision}"
        whole, scores = self._samples(rows, group.version)
        references = [self._training_reference(group.version)]
        if self._settings.weeks and self._is_stable(group.revision):
            references.append(self._earlier_weeks(group, _Span(start_us, end_us)))
        if not self._is_stable(group.revision):
            references.append(self._stable(group, _Span(start_us, end_us)))
        window = Window(subject, start_us, end_us, whole, rows.num_rows, scores)
        for reference in references:
            yield judge_window(window, reference, self._settings)

    def _find_first(self, since_us: int) -> dict[Group, int]:
        """Revisions and versions with rows that were not judged, each with the start of the first window that has any."""
        alive = [to_us for group, to_us in self._judged_to.items() if group not in self._quiet]
        oldest_us = min([*alive, *([] if self._judged_to else [since_us])], default=max(self._judged_to.values(), default=0))
        first: dict[Group, int] = {}
        for rows in read_predictions(self._folder, since_us=oldest_us, columns=["answered_at", "model_version", "revision"]):
            minutes = pc.divide(rows["answered_at"].cast(pa.int64()), MINUTE_US)
            table = rows.append_column("minute", minutes).group_by(["revision", "model_version", "minute"]).aggregate([])
            for row in table.to_pylist():
                group = Group(row["revision"], row["model_version"])
                window_us = self._window_us(group.revision)
                at_us = row["minute"] * MINUTE_US // window_us * window_us
                if at_us >= self._judged_to.get(group, 0):
                    first[group] = min(first.get(group, at_us), at_us)
        return first

    def _next_span(self, group: Group, start_us: int, now_us: int) -> _Span | None:
        """The window that begins at a time or with the first row after it, once it is over: as many times ``window_s`` as its
        rows need. An empty one as long as windows may be, where no row has come at all."""
        longest_us, ready_us = self._settings.longest_window_s * US_PER_S, now_us - FLUSH_S * US_PER_S
        window_us = self._window_us(group.revision)
        slots = min(longest_us, ready_us - start_us) // window_us
        if slots <= 0:
            return None
        counted = self._count_whole(group, _Span(start_us, start_us + slots * window_us))
        filled = np.flatnonzero(counted)
        if not len(filled):
            return _Span(start_us, start_us + longest_us, empty=True) if start_us + longest_us <= ready_us else None
        if filled[0]:
            return self._next_span(group, start_us + int(filled[0]) * window_us, now_us)
        enough = np.flatnonzero(np.cumsum(counted) >= self._settings.least_rows)
        if len(enough):
            return _Span(start_us, start_us + (int(enough[0]) + 1) * window_us)
        end_us = start_us + longest_us
        return _Span(start_us, end_us) if end_us <= ready_us else None

    def _count_whole(self, group: Group, span: _Span) -> Ints:
        """Different entities that were logged whole first in each window of the span."""
        tables = []
        columns = ["answered_at", "model_version", "entity_id", "fields"]
        for rows in self._read_all(span, group.revision, columns):
            chosen = rows.filter(pc.and_(pc.equal(rows["model_version"], group.version), pc.is_valid(rows["fields"])))
            tables.append(chosen.select(["entity_id", "answered_at"]))
        window_us = self._window_us(group.revision)
        slots = (span.end_us - span.start_us) // window_us
        if not tables:
            return np.zeros(slots, np.int64)
        first = pa.concat_tables(tables).group_by("entity_id").aggregate([("answered_at", "min")])["answered_at_min"]
        places = (first.cast(pa.int64()).to_numpy() - span.start_us) // window_us
        return np.bincount(places, minlength=slots)

    def _answers(self, span: _Span, revision: str) -> bool:
        return any(True for _ in self._read_all(span, revision, ["answered_at"]))

    def _window_us(self, revision: str) -> int:
        return self._settings.window_of(stable=self._is_stable(revision)) * US_PER_S

    def _is_stable(self, revision: str) -> bool:
        return self._revisions.was_stable(revision)

    def _samples(self, rows: pa.Table, version: int) -> tuple[Sample, Sample]:
        """What was logged whole, and scores of all rows."""
        if version not in self._names:
            self._names[version] = read_names(self._workspace.model(self._model, version))
        return sample_whole_rows(rows, self._names[version]), sample_scores(rows)

    def _training_reference(self, version: int) -> Reference:
        if version not in self._training:
            path = self._workspace.model(self._model, version) / REFERENCE_FILE
            self._training[version] = read_training_reference(path)
        return self._training[version]

    def _earlier_weeks(self, group: Group, span: _Span) -> Reference:
        """The same hours of earlier weeks: features of any version with the same names, scores of this version alone."""
        importance = self._training_reference(group.version).importance
        wholes, scores = [], []
        for week in range(1, self._settings.weeks + 1):
            earlier = _Span(span.start_us - week * WEEK_US, span.end_us - week * WEEK_US)
            rows = self._read_stable(earlier)
            for version in sorted(set(rows["model_version"].to_pylist())):
                own = rows.filter(pc.equal(rows["model_version"], version))
                whole, scored = self._samples(own, version)
                if self._names[version] == self._names[group.version]:
                    wholes.append(whole)
                if version == group.version:
                    scores.append(scored)
        whole, scored = self._samples(NO_ROWS, group.version)
        return Reference(WEEKS, concatenate([*wholes, whole]), importance, scores=concatenate([*scores, scored]))

    def _stable(self, group: Group, span: _Span) -> Reference:
        """Stable's rows of the same time; where it answers with a version of other features, those both have are compared."""
        rows = self._read_stable(span)
        versions = set(rows["model_version"].to_pylist())
        samples = [self._samples(rows.filter(pc.equal(rows["model_version"], each)), each) for each in sorted(versions)]
        samples = samples or [self._samples(rows, group.version)]
        whole, scores = samples[-1]
        shared = whole.select(self._samples(rows.slice(0, 0), group.version)[0].feature_names)
        return Reference(STABLE, shared, self._training_reference(group.version).importance, scores=scores)

    def _read(self, span: _Span, revision: str, version: int) -> pa.Table:
        rows = pa.concat_tables([NO_ROWS, *self._read_all(span, revision, COLUMNS)])
        return rows.filter(pc.equal(rows["model_version"], version))

    def _read_stable(self, span: _Span) -> pa.Table:
        """Rows of whatever revision was stable then."""
        rows = pa.concat_tables([NO_ROWS, *self._read_all(span, None, COLUMNS)])
        names = [name for name in pc.unique(rows["revision"]).to_pylist() if self._is_stable(name)]
        return rows.filter(pc.is_in(rows["revision"], value_set=pa.array(names, pa.string())))

    def _read_all(self, span: _Span, revision: str | None, columns: list[str]) -> Iterator[pa.Table]:
        return read_predictions(
            self._folder, since_us=span.start_us, until_us=span.end_us, revision=revision, columns=columns
        )  # fmt: skip

    @property
    def _progress(self) -> Path:
        return self._workspace.drift_verdicts() / "progress" / f"{self._model}.json"

    def _read_progress(self) -> None:
        if self._progress.exists():
            for entry in json.loads(self._progress.read_text(encoding="utf-8")):
                group = Group(entry["revision"], entry["version"])
                self._judged_to[group] = entry["judged_to_us"]
                self._quiet |= {group} if entry["quiet"] else set()

    def _write_progress(self) -> None:
        self._progress.parent.mkdir(parents=True, exist_ok=True)
        entries = [
            {**group._asdict(), "judged_to_us": to_us, "quiet": group in self._quiet}
            for group, to_us in sorted(self._judged_to.items())
        ]
        partial = self._progress.with_name(f"{self._progress.name}.partial")
        partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        partial.replace(self._progress)
