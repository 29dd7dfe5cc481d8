"""Scores and labels of a service's stable revision watched value by value, beside the windows: shown at once, never paged.

Positions in the prediction log and the table of labels, and every watch's state, are one file that is replaced as a whole: a
killed process takes in no value twice and leaves none out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.layout import DAY_S, US_PER_S
from features.predictions import count_frames, list_segments, read_new
from features.reference import REFERENCE_FILE, read_reference
from features.served_labels import read_labels
from features.workspace import Workspace
from monitoring.drift.online import OnlineSettings, OnlineWatch, ShareWatch, ValueWatch
from monitoring.drift.predictions import once_an_entity
from monitoring.drift.reference import to_floats
from monitoring.revisions import read_revisions
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

SCORE, FALL, RISE = "score", "labels.fall", "labels.rise"
STREAMS: Final = (SCORE, FALL, RISE)
SETTINGS: Final = OnlineSettings(windows=(50, 150))
REFERENCE_SCORES: Final = 400
REFERENCE_LABELS: Final = 2_000
MOST_ROWS: Final = 5_000
"""Rows taken in at once; the next look goes on from there."""
STANDS_US: Final = DAY_S * US_PER_S
"""An alarm is shown for so long."""
LABEL_COLUMNS: Final = ["model_version", "revision", "label", "known_at"]


class OnlineDrift:
    """The online watches of one service; for one thread. It begins with what comes after its first look."""

    def __init__(self, workspace: Workspace, service: str, model: str, settings: OnlineSettings = SETTINGS) -> None:
        self._workspace = workspace
        self._service = service
        self._model = model
        self._settings = settings
        self._path = workspace.drift_verdicts() / "online" / f"{service}.json"
        self._watches: dict[str, OnlineWatch] = {}
        self._state: dict[str, Any] = {}

    def judge(self, now_us: int) -> Iterator[Verdict]:
        """Take in what has come, and say what stands of the newest version that the stable revision has answered with.

        Raises:
            EventLogError: the prediction log or the table of labels is damaged.
            StoreError: the version has no reference.
        """
        state = self._read_state(now_us)
        stable = read_revisions(self._workspace, self._service).stable
        rows, state["cursor"] = read_new(self._workspace.predictions(self._model), state["cursor"], limit=MOST_ROWS)
        answers = rows.filter(pc.equal(rows["revision"], stable))
        if answers.num_rows:
            state["version"] = max(state["version"], pc.max(answers["model_version"]).as_py())
        self._take_in(SCORE, once_an_entity(answers), "score", now_us)
        labels = read_labels(self._workspace.served_labels(self._model), columns=LABEL_COLUMNS)
        labels = labels.filter(pc.greater(labels["known_at"].cast(pa.int64()), state["labels_to_us"]))
        if labels.num_rows:
            state["labels_to_us"] = pc.max(labels["known_at"].cast(pa.int64())).as_py()
        for stream in (FALL, RISE):
            self._take_in(stream, labels.filter(pc.equal(labels["revision"], stable)), "label", now_us)
        self._write_state()
        yield from self._tell(f"{self._service}/{stable}", now_us)

    def _take_in(self, stream: str, rows: pa.Table, column: str, now_us: int) -> None:
        """Values of the newest version, in their order."""
        own = rows.filter(pc.equal(rows["model_version"], self._state["version"]))
        if not own.num_rows:
            return
        key = f"{self._state['version']}/{stream}"
        watch = self._find(key, stream)
        entry = self._state["streams"].setdefault(key, {"values": 0, "alarms": 0, "alarm_us": 0})
        alarms = watch.update(own[column].to_numpy())
        entry["values"] += own.num_rows
        entry["alarms"] += len(alarms)
        entry["alarm_us"] = now_us if alarms else entry["alarm_us"]
        entry["state"], entry["thresholds"] = watch.describe(), watch.thresholds.tolist()

    def _find(self, key: str, stream: str) -> OnlineWatch:
        """The watch of a version's stream, as it was left."""
        if key not in self._watches:
            known = self._state["streams"].get(key)
            self._watches[key] = self._make(stream, np.array(known["thresholds"]) if known else None)
            if known:
                self._watches[key].restore(known["state"])
        return self._watches[key]

    def _make(self, stream: str, thresholds: np.ndarray | None) -> OnlineWatch:
        table, facts = read_reference(self._workspace.model(self._model, self._state["version"]) / REFERENCE_FILE)
        if stream == SCORE:
            scores = to_floats(table["score"]).astype(np.float64)
            drawn = np.random.default_rng(self._settings.seed).permutation(len(scores))[:REFERENCE_SCORES]
            return ValueWatch(scores[drawn], self._settings, thresholds=thresholds)
        count = min(facts.labels, REFERENCE_LABELS)
        positives = min(max(round(facts.positives / max(facts.labels, 1) * count), 1), count - 1)
        return ShareWatch(
            np.arange(count) < positives, stream.rpartition(".")[2], self._settings, thresholds=thresholds
        )  # fmt: skip

    def _tell(self, subject: str, now_us: int) -> Iterator[Verdict]:
        for stream in STREAMS:
            entry = self._state["streams"].get(f"{self._state['version']}/{stream}")
            if entry is None:
                continue
            evidence: dict[str, Finding] = {name: entry[name] for name in ("values", "alarms", "alarm_us")}
            evidence["values_between_alarms"] = self._settings.values_between_alarms
            stands = bool(entry["alarm_us"]) and now_us - entry["alarm_us"] < STANDS_US
            few = entry["values"] < min(self._settings.windows)
            outcome = Outcome.FAIL if stands else Outcome.INCONCLUSIVE if few else Outcome.PASS
            text = (
                f"{entry['alarms']} alarms in {entry['values']:,} values of version {self._state['version']}, where one in"
                f" {self._settings.values_between_alarms:,} is chance"
            )
            yield Verdict(f"drift.online.{stream}", subject, outcome, Severity.INFO, evidence, text, now_us)

    def _read_state(self, now_us: int) -> dict[str, Any]:
        if not self._state:
            self._state = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else self._begin(now_us)
        return self._state

    def _begin(self, now_us: int) -> dict[str, Any]:
        segments = list_segments(self._workspace.predictions(self._model))
        cursor = {path.name: count_frames(path) for path in segments}
        return {"cursor": cursor, "labels_to_us": now_us, "version": 0, "streams": {}}

    def _write_state(self) -> None:
        version = self._state["version"]
        streams = {key: each for key, each in self._state["streams"].items() if key.startswith(f"{version}/")}
        self._state["streams"] = streams
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({**self._state, "cursor": dict(self._state["cursor"])}), encoding="utf-8")
        partial.replace(self._path)
