"""Logged predictions with what is known of their outcomes by now, whether they have matured or not.

``components.served_labels`` waits until a label is final and writes it down. Here outcomes are looked at as they come, for the
maturity table and for estimates; nothing is written.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from components.served_labels import LABELLED, judge_rows, known_until, wait_us
from features.declarations import Catalog, View
from features.event_log.complete import read_complete
from features.partitions import partition_of
from features.predictions import read_predictions
from features.rows import PREDICTION
from features.workspace import Workspace
from models.labels import label_rows
from models.specs import LabelSpec, load_spec
from monitoring.label_maturity import NEVER_KNOWN, Answers

COLUMNS: Final = ["entity_id", "now", "answered_at", "model_version", "score"]
NO_ROWS: Final = PREDICTION.empty_table().select(COLUMNS)
HASHES: Final = 1 << 32
Ints = NDArray[np.int64]


def read_answers(workspace: Workspace, model: str, *, since_us: int, now_us: int, most: int) -> Answers:
    """Predictions answered from ``since_us`` on, in the order of their time, and their outcomes as known by the log's end.

    Args:
        since_us, now_us: UTC microseconds.
        most: of more rows than about so many, those of a part of the entities are taken, drawn by a hash of their ids.

    Raises:
        PlumblineError: the model is unknown, or a log is damaged.
    """
    label = load_spec(model).label
    catalog, view = declarations_of(model)
    known_at_us = known_until(workspace, catalog, view.entity, now_us)
    rows = _read_rows(workspace, model, since_us, now_us, most)
    parts = [_look_up(workspace, catalog, view, part, label, known_at_us) for part in _split(rows, catalog)]
    found = pa.concat_tables([NO_ROWS, *(part for part, _ in parts)])
    asked_us = found["now"].cast(pa.int64()).to_numpy()
    known_us = np.concatenate([np.zeros(0, np.int64), *(known for _, known in parts)])
    order = np.argsort(asked_us, kind="stable")
    answers = Answers(
        now_us=asked_us,
        known_us=known_us,
        score=found["score"].to_numpy().astype(np.float64),
        version=found["model_version"].to_numpy(),
        matured=asked_us + wait_us(label) <= known_at_us,
        entity=found["entity_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64),
    )
    return answers.take(order)


def space_out(answers: Answers, apart_us: int) -> Answers:
    """Of each entity its first row, and each next one that was asked ``apart_us`` after the last one kept.

    Then no outcome counts for two rows, as tests that take rows for different draws must have it.
    """
    last: dict[int, int] = {}
    kept = np.zeros(len(answers), np.bool_)
    for number, (entity, now_us) in enumerate(zip(answers.entity.tolist(), answers.now_us.tolist(), strict=True)):
        if entity not in last or now_us - last[entity] >= apart_us:
            kept[number], last[entity] = True, now_us
    return answers.take(kept)


def _read_rows(workspace: Workspace, model: str, since_us: int, now_us: int, most: int) -> pa.Table:
    """Rows of a part of the entities that shrinks by half whenever there are too many."""
    tables: list[pa.Table] = []
    below, rows = HASHES, 0
    for table in read_predictions(workspace.predictions(model), since_us=since_us, until_us=now_us + 1, columns=COLUMNS):
        tables.append(_drawn(table, below))
        rows += tables[-1].num_rows
        while rows > 2 * most:
            below //= 2
            tables = [_drawn(pa.concat_tables(tables), below)]
            rows = tables[0].num_rows
    return pa.concat_tables([NO_ROWS, *tables])


def _drawn(table: pa.Table, below: int) -> pa.Table:
    if below == HASHES:
        return table
    ids = pc.unique(table["entity_id"])
    wanted = pa.array([name for name in ids.to_pylist() if crc32(name.encode()) < below], pa.string())
    return table.filter(pc.is_in(table["entity_id"], value_set=wanted))


def _split(rows: pa.Table, catalog: Catalog) -> list[pa.Table]:
    places = partition_of(rows["entity_id"], catalog.log_partitions) if rows.num_rows else np.zeros(0, np.int64)
    return [rows.filter(pa.array(places == partition)) for partition in np.unique(places).tolist()]


def _look_up(
    workspace: Workspace, catalog: Catalog, view: View, rows: pa.Table, label: LabelSpec, known_at_us: int
) -> tuple[pa.Table, Ints]:
    """Rows of one log partition that have or can get a label, and when the outcome of each became known."""
    partition = int(partition_of(rows["entity_id"].slice(0, 1), catalog.log_partitions)[0])
    log = read_complete(workspace, catalog, view, partition, entity_ids=rows["entity_id"].combine_chunks().unique())
    status, touch = judge_rows(rows, log, label)
    fit = status == LABELLED
    rows, touch = rows.filter(pa.array(fit)), touch[fit]
    ids, now_us = rows["entity_id"].combine_chunks(), rows["now"].cast(pa.int64()).to_numpy()
    found = label_rows(log.events, label, ids, now_us, known_at_us=known_at_us, touch=touch)
    known = found["outcome_known_time"].combine_chunks().cast(pa.int64())
    known_us = pc.fill_null(known, NEVER_KNOWN).to_numpy(zero_copy_only=False)
    # What reaches the log after the label's delay does not alter it, here as there.
    return rows, np.where(known_us > now_us + wait_us(label), NEVER_KNOWN, known_us)
