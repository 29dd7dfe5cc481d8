"""Audiences on disk: one Delta table a model, a row for each pair of user and campaign that reached the campaign's threshold.

A pair without a row is out because its score lay below the threshold: a hundred million pairs leave few rows. A sweep replaces
the whole table; what changes until the next one is appended under the next ``sequence``, and of a pair's rows the one with the
highest counts. Whoever reads between two commits therefore sees one whole moment, and Delta's versions are the history.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from features import delta
from features.errors import EventLogError, TemporaryError, explain
from features.rows import TIME

SELECTED: Final = "selected"
BELOW_THRESHOLD: Final = "below_threshold"
FACTS: Final = "plumbline"
"""Key of our own entry in a commit's metadata."""
PAIR: Final = ["campaign", "entity_id"]

AUDIENCE: Final = pa.schema(
    [
        pa.field("campaign", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("member", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("scored_at", TIME, nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)
"""One pair: the score, whether the user is in, and why or why not. ``scored_at`` is the ``now`` of the score; ``sequence`` is 0
for a sweep and counts the commits since."""


@dataclass(frozen=True)
class Sweep:
    """What a commit says of itself.

    Attributes:
        now_us: when all users were scored last, UTC microseconds.
        model, model_version: by whom.
        population: users scored.
        sequence: commits since that sweep.
        mean_scores: by campaign, over all users: what an audience's own mean is compared with.
        policy: the policy as it was given.
        cursors: by shard, where the store's changelog stood before its users were read: (log offset, sequence), or None.
    """

    now_us: int
    model: str
    model_version: int
    population: int
    sequence: int
    mean_scores: Mapping[str, float]
    policy: Mapping[str, Any]
    cursors: Mapping[str, tuple[int, int] | None]


@dataclass(frozen=True)
class Audiences:
    """The table as of one of its versions: one row a pair, by campaign and entity_id, without those below the threshold."""

    version: int
    sweep: Sweep
    rows: pl.DataFrame


def write_sweep(folder: Path, rows: pa.Table | pa.RecordBatchReader, sweep: Sweep) -> int:
    """Put a sweep's rows in the place of all others, in one commit; returns the table's version.

    Raises:
        TemporaryError: another process writes the table.
    """
    with delta.writing(folder):
        write_deltalake(folder, rows, mode="overwrite", schema_mode="overwrite", commit_properties=_facts(sweep))
        return DeltaTable(folder).version()


def append_changes(folder: Path, rows: pa.Table, sweep: Sweep, *, expected_version: int) -> int:
    """Add what has changed since ``expected_version`` of the table; returns the new version.

    Raises:
        TemporaryError: another process writes the table, or has written meanwhile.
    """
    with delta.writing(folder):
        table = delta.open_table(folder)
        if table is None or table.version() != expected_version:
            raise TemporaryError(
                explain("audience was written by somebody else", which=str(folder), expected=f"version {expected_version}",
                        got="none" if table is None else f"version {table.version()}",
                        next_step="look again; let one process keep a model's audiences")
            )  # fmt: skip
        write_deltalake(table, rows, mode="append", commit_properties=_facts(sweep))
        return DeltaTable(folder).version()


def read_audiences(folder: Path, *, version: int | None = None) -> Audiences:
    """The audiences as of a version of the table, the newest where None.

    Raises:
        EventLogError: there is none, the table is damaged, or that version is gone.
    """
    table = delta.open_table(folder)
    if table is None:
        raise EventLogError(
            explain("no audience has been built", which=str(folder), expected="a Delta table", got="nothing",
                    next_step="run `plumb audience build`")
        )  # fmt: skip
    try:
        # Before another version is loaded: a history is always whole, and numbered downwards from the version at hand.
        history, wanted = table.history(), table.version() if version is None else version
        facts = next(entry[FACTS] for entry in history if FACTS in entry and entry["version"] <= wanted)
        table.load_as_version(wanted)
    except (*delta.READ_ERRORS, StopIteration) as error:
        raise delta.corrupted(folder, error) from error
    newest = pl.scan_delta(table).sort("sequence").unique(PAIR, keep="last").filter(pl.col("reason") != BELOW_THRESHOLD)
    return Audiences(table.version(), _sweep_of(facts), delta.collect(newest.sort(PAIR), folder))


def newest_version(folder: Path) -> int | None:
    """Number of the table's newest version; None where there is no table."""
    table = delta.open_table(folder)
    return None if table is None else table.version()


def versions(folder: Path) -> list[tuple[int, Sweep]]:
    """Versions of the table that say what they are, the newest first."""
    table = delta.open_table(folder)
    entries = [] if table is None else table.history()
    return [(int(entry["version"]), _sweep_of(entry[FACTS])) for entry in entries if FACTS in entry]


def erase(folder: Path, entity_ids: Collection[str]) -> int:
    """Remove every row of these entities, and the files that held them; returns how many there were.

    The facts of the newest version stay those of the table. No older version can be read any more.

    Raises:
        TemporaryError: another process writes the table.
        EventLogError: the table is damaged.
    """
    return delta.erase_entities(
        folder, entity_ids, lambda table: {FACTS: next(entry[FACTS] for entry in table.history() if FACTS in entry)}
    )


def _facts(sweep: Sweep) -> CommitProperties:
    return CommitProperties(custom_metadata={FACTS: json.dumps(asdict(sweep))})


def _sweep_of(text: str) -> Sweep:
    facts = json.loads(text)
    facts["cursors"] = {shard: None if at is None else (at[0], at[1]) for shard, at in facts["cursors"].items()}
    return Sweep(**facts)
