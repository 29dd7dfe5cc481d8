"""Audiences kept fresh: users whose state changed are scored as soon as the store's changelog names them, and everybody at tile
boundaries, because the windows of quiet users empty too.

A step reads the changelog from where the table's own commit left off, so whoever is killed goes on from there: a user is scored
once more than needed, never once less. Where the changelog cannot say what changed (a fill, a restart after long, a store that
went back), everybody is swept at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from components.audiences import AudienceSite, as_rows, build_audiences
from features.audiences import AUDIENCE, BELOW_THRESHOLD, PAIR, Audiences, append_changes, newest_version, read_audiences
from features.layout import MINUTE_S, US_PER_S
from features.online.addresses import ViewVersion
from features.online.store import ChangeCursor, Lookup, OnlineStore
from features.partitions import partition_of
from models.audience_policy import REASONS, limit_audience
from transforms.scoring import DEFAULT_RUNNER, TowerScorer, score_users, shared_store

SWEEP_S: Final = 15 * MINUTE_S
"""How old the score of a quiet user may be: a multiple of the tiles that windows of up to twelve hours are made of."""

Cursors = Mapping[str, tuple[int, int] | None]
Kind = Literal["sweep", "changes", "nothing"]


@dataclass(frozen=True)
class Step:
    """What one look did: users scored, pairs whose row was written, members who came and who went."""

    kind: Kind
    users: int
    pairs: int = 0
    came: int = 0
    went: int = 0


class AudienceKeeper:
    """Keeps one model's audiences; the one process that writes their table."""

    def __init__(self, site: AudienceSite, *, sweep_s: int = SWEEP_S, runner: str = DEFAULT_RUNNER) -> None:
        """Do nothing yet.

        Args:
            site: whose audiences.
            sweep_s: everybody is scored at multiples of so many seconds.
            runner: of the sweeps.
        """
        self._site, self._sweep_us, self._runner = site, sweep_s * US_PER_S, runner
        self._catalog, self._view = site.declared
        self._now: Audiences | None = None

    def step(self, now_us: int) -> Step:
        """Look once: sweep where a boundary has passed since the last sweep, else score whoever changed.

        Raises:
            PlumblineError: the store cannot be read, or somebody else writes the table.
        """
        standing = self._standing()
        if standing is None or now_us // self._sweep_us > standing.sweep.now_us // self._sweep_us:
            return self._sweep(now_us)
        store = shared_store(self._site.store, ViewVersion.of(self._catalog, self._view))
        changed: list[str] = []
        cursors: dict[str, tuple[int, int] | None] = {}
        for shard, after in standing.sweep.cursors.items():
            found = store.changes(int(shard), None if after is None else ChangeCursor(*after))
            if not found.complete and not (after is None and found.cursor is None):
                return self._sweep(now_us)
            changed += found.entity_ids
            cursors[shard] = None if found.cursor is None else (found.cursor.log_offset, found.cursor.sequence)
        if not changed:
            return Step("nothing", 0)
        return self._rescore(standing, store, list(dict.fromkeys(changed)), cursors, now_us)

    def _standing(self) -> Audiences | None:
        """What the table holds, if it is of this version and policy; read again where a deletion has changed it."""
        version = newest_version(self._site.folder)
        if version is not None and (self._now is None or self._now.version != version):
            self._now = read_audiences(self._site.folder)
        same = self._now is not None and (self._now.sweep.model_version, self._now.sweep.policy) == (
            self._site.version, dict(self._site.content),
        )  # fmt: skip
        return self._now if same else None

    def _sweep(self, now_us: int) -> Step:
        before = self._now
        sweep = build_audiences(self._site, now_us=now_us, runner=self._runner)
        self._now = read_audiences(self._site.folder)
        came, went = count_moves(None if before is None else before.rows, self._now.rows)
        return Step("sweep", sweep.population, self._now.rows.height, came, went)

    def _rescore(self, standing: Audiences, store: OnlineStore, changed: list[str], cursors: Cursors, now_us: int) -> Step:
        site, job = self._site, self._site.job(now_us)
        scorer, parts = TowerScorer(job), []
        for shard, ids in self._by_shard(changed).items():
            parts.append(score_users(scorer, job.judge_of(shard), *find_known(store, ids)).kept)
        kept = pa.concat_tables(parts)
        rescored = self._as_frame(kept, now_us)
        others = standing.rows.filter(~pl.col("entity_id").is_in(changed))
        decided = self._limit(pl.concat([others, rescored.select(others.columns)]), standing.sweep.population)
        left = standing.rows.filter(pl.col("entity_id").is_in(changed)).join(decided, on=PAIR, how="anti")
        left = left.with_columns(member=pl.lit(value=False), reason=pl.lit(BELOW_THRESHOLD), scored_at=_instant(now_us))
        same = ["score", "member", "reason", "scored_at"]
        moved = decided.join(standing.rows.select(*PAIR, *same), on=[*PAIR, *same], how="anti")
        sweep = replace(standing.sweep, sequence=standing.sweep.sequence + 1, cursors=cursors)
        rows = pl.concat([moved, left]).with_columns(sequence=pl.lit(sweep.sequence, pl.Int64))
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).select(AUDIENCE.names).cast(AUDIENCE)
        version = append_changes(site.folder, table, sweep, expected_version=standing.version)
        self._now = Audiences(version, sweep, decided.sort(PAIR))
        came, went = count_moves(standing.rows, decided)
        return Step("changes", len(changed), rows.height, came, went)

    def _by_shard(self, entity_ids: list[str]) -> dict[int, list[str]]:
        shards = partition_of(pa.array(entity_ids), self._catalog.log_partitions).tolist()
        found: dict[int, list[str]] = {}
        for shard, name in zip(shards, entity_ids, strict=True):
            found.setdefault(int(shard), []).append(name)
        return found

    def _as_frame(self, kept: pa.Table, now_us: int) -> pl.DataFrame:
        """Kept pairs as rows of the table, judged by the policy's first step alone."""
        names, number = [entry.name for entry in self._site.policy.campaigns], kept["campaign"].to_numpy()
        parts = []
        for place, name in enumerate(names):
            mine = kept.filter(pa.array(number == place))
            ids = mine["entity_id"].cast(pa.string()).combine_chunks()
            parts.append(as_rows(self._site, name, ids, mine["score"].to_numpy(), mine["code"].to_numpy(), now_us))
        return pl.DataFrame(pa.Table.from_batches(parts, AUDIENCE))

    def _limit(self, rows: pl.DataFrame, population: int) -> pl.DataFrame:
        """The policy's second step over everybody, those whose state did not change included: a place may have become free."""
        parts = [rows.clear()]
        for policy in self._site.policy.campaigns:
            mine = rows.filter(pl.col("campaign") == policy.name)
            codes = np.array([_CODES[reason] for reason in mine["reason"].to_list()], dtype=np.int8)
            ids = mine["entity_id"].to_arrow(compat_level=pl.CompatLevel.oldest())
            decided = limit_audience(mine["score"].to_numpy(), codes, ids, policy, population)
            reasons = pl.Series("reason", [REASONS[code] for code in decided.tolist()], dtype=pl.String)
            parts.append(mine.with_columns(reasons, member=pl.Series(decided == 0)))
        return pl.concat(parts)


_CODES: Final = {reason: code for code, reason in enumerate(REASONS)}


def find_known(store: OnlineStore, entity_ids: list[str]) -> tuple[list[str], Lookup]:
    """Those users of whom the store knows anything, and what; somebody who was erased has no score."""
    found = store.get_many(entity_ids)
    rows = [row for row in range(len(entity_ids)) if found.states[row] or found.profiles[row]]
    if len(rows) == len(entity_ids):
        return entity_ids, found
    known = Lookup(
        [found.states[row] for row in rows], [found.profiles[row] for row in rows], [found.shards[row] for row in rows],
        found.watermarks, [found.degraded[row] for row in rows],
    )  # fmt: skip
    return [entity_ids[row] for row in rows], known


def count_moves(before: pl.DataFrame | None, after: pl.DataFrame) -> tuple[int, int]:
    """How many memberships began and how many ended."""
    members = after.filter("member").select(PAIR)
    if before is None:
        return members.height, 0
    earlier = before.filter("member").select(PAIR)
    return members.join(earlier, on=PAIR, how="anti").height, earlier.join(members, on=PAIR, how="anti").height


def _instant(now_us: int) -> pl.Expr:
    return pl.lit(now_us).cast(pl.Datetime("us", "UTC"))
