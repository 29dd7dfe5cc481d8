"""Audiences of a model's campaigns: scored by transforms, judged by the policy of models, kept in the table of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa

from features.audiences import AUDIENCE, Sweep, write_sweep
from features.catalogs import load_catalog
from features.declarations import Catalog, Field, View
from features.errors import explain
from features.joins import content_fields
from features.online.addresses import ViewVersion, beside
from features.partitions import partition_of
from features.profiles import profiles_current
from features.rows import TIME
from features.workspace import Workspace
from models.audience_policy import (
    REASONS,
    SELECTED,
    AudiencePolicy,
    Codes,
    Floats32,
    judge_users,
    limit_audience,
    read_policy,
    standing_of,
)
from models.errors import SpecError
from models.specs import load_spec
from models.versions import load
from transforms.joined import join_stored
from transforms.plan import plan_graph
from transforms.scoring import DEFAULT_RUNNER, Judge, ScoringJob, load_signatures, read_scored, score_all, shared_store

NAMES: Final = pa.array(REASONS)
NOBODY: Final[Mapping[str, str]] = {}


@dataclass(frozen=True)
class AudienceSite:
    """Whose audiences, from what, to where.

    Attributes:
        workspace: holds the versions, the permissions and the table.
        model, version: of the registry.
        saved_model: of that version.
        store: address of the view's online store; that of the campaigns' own view stands beside it.
        content: the policy as it was given; ``policy`` is what it says.
    """

    workspace: Workspace
    model: str
    version: int
    saved_model: Path
    store: str
    content: Mapping[str, Any]

    @classmethod
    def of(
        cls, workspace: Workspace, model: str, content: Mapping[str, Any], *, store: str = "", version: int | None = None
    ) -> AudienceSite:
        """The site of a registered version, the champion where none is named, with the workspace's own store.

        Raises:
            PlumblineError: there is no such version, or the policy does not fit the model.
        """
        registered = load(workspace, model, version)
        _, view = _declared(model)
        site = cls(
            workspace,
            model,
            registered.version,
            registered.path / "saved_model",
            store or str(workspace.online(view.key)),
            content,
        )
        site.check()
        return site

    @property
    def policy(self) -> AudiencePolicy:
        return read_policy(self.content)

    @property
    def declared(self) -> tuple[Catalog, View]:
        return _declared(self.model)

    @property
    def folder(self) -> Path:
        return self.workspace.audiences(self.model)

    def check(self) -> None:
        """Raise ``SpecError`` where a campaign's content or what the policy counts is not the view's."""
        (catalog, view), policy = self.declared, self.policy
        request = {entry.name: entry for entry in content_fields(view)}
        for campaign in policy.campaigns:
            unknown = [name for name, value in campaign.content.items() if not _fits(request.get(name), value)]
            if unknown:
                raise _misfit(f"content of campaign {campaign.name!r}", f"values of {', '.join(request)}", unknown[0])
        finished = plan_graph(catalog, view).finished_names
        if policy.counted_by and policy.counted_by not in finished:
            raise _misfit("counted_by", f"a finished feature of {view.key}", policy.counted_by)
        profile, _, field = policy.consent.partition(".")
        known = {f"{entry.name}.{each.name}" for entry in catalog.profiles for each in entry.fields if each.dtype == "string"}
        if policy.consent and f"{profile}.{field}" not in known:
            raise _misfit("consent", f"one of {', '.join(sorted(known))}", policy.consent)

    def job(self, now_us: int) -> ScoringJob:
        """The scoring of this site's campaigns at a time: their content, and their own states as the store has them now.

        Raises:
            StoreError, StoreUnavailable: the campaigns' store cannot be read.
        """
        catalog, view = self.declared
        campaigns: dict[str, list[Any]] = {
            entry.name: [campaign.content.get(entry.name, entry.default) for campaign in self.policy.campaigns]
            for entry in content_fields(view)
        }
        names = [campaign.name for campaign in self.policy.campaigns]
        for join in view.joins:
            other = catalog.view(join.view)
            store = shared_store(beside(self.store, other.key), ViewVersion.of(catalog, other))
            campaigns |= join_stored(load_signatures(self.saved_model), join, store, names, now_us)
        return ScoringJob(self.saved_model, catalog, view, self.store, campaigns, now_us, UserJudges(self, now_us))


@dataclass(frozen=True)
class UserJudges:
    """Makes the judge of a shard's users: the policy's first step, with consent as known at a time."""

    site: AudienceSite
    now_us: int

    def __call__(self, shard: int) -> Judge:
        site, policy = self.site, self.site.policy
        catalog, view = site.declared
        permitted = read_permissions(site, self.now_us, shard)
        counted = plan_graph(catalog, view).finished_names.index(policy.counted_by) if policy.counted_by else None

        def judge(entity_ids: Sequence[str], finished: Floats32, scores: Floats32) -> Codes:
            received = None if counted is None else finished[:, counted].astype(np.int64)
            return judge_users(scores, policy, standing_of(entity_ids, policy, received, permitted))

        return judge


def read_permissions(site: AudienceSite, now_us: int, shard: int) -> Mapping[str, str] | None:
    """Permitted channels by user of a shard as known at a time; None where the policy asks nobody."""
    if not site.policy.consent:
        return None
    catalog, _ = site.declared
    profile, _, field = site.policy.consent.partition(".")
    table = profiles_current(site.workspace, catalog, profile, as_of_us=now_us)
    if not table.num_rows:
        return NOBODY
    mine = pa.array(partition_of(table["entity_id"], catalog.log_partitions) == shard)
    rows = table.filter(mine)
    return dict(zip(rows["entity_id"].to_pylist(), (value or "" for value in rows[field].to_pylist()), strict=True))


def build_audiences(site: AudienceSite, *, now_us: int, runner: str = DEFAULT_RUNNER, workers: int = 2) -> Sweep:
    """Score all users of the store at ``now_us``, judge them, and put the result in the place of the table's rows.

    Raises:
        StoreError, EventLogError, GraphError: the store's, the table's, the model's.
    """
    cursors = changelog_cursors(site)
    with TemporaryDirectory(prefix="plumb-audience-") as scratch:
        parts = [read_scored(path) for path in score_all(site.job(now_us), Path(scratch), runner=runner, workers=workers)]
        population = sum(part.users for part in parts)
        means = sum(part.sums for part in parts) / max(population, 1)
        names = [campaign.name for campaign in site.policy.campaigns]
        sweep = Sweep(
            now_us=now_us, model=site.model, model_version=site.version, population=population, sequence=0,
            mean_scores=dict(zip(names, np.asarray(means).tolist(), strict=True)), policy=dict(site.content), cursors=cursors,
        )  # fmt: skip
        kept = pa.concat_tables([part.kept for part in parts])
        reader = pa.RecordBatchReader.from_batches(AUDIENCE, decide(site, kept, population, now_us))
        write_sweep(site.folder, reader, sweep)
    return sweep


def decide(site: AudienceSite, kept: pa.Table, population: int, now_us: int) -> Iterator[pa.RecordBatch]:
    """The policy's second step over all kept pairs: rows of the table, campaign by campaign."""
    campaign = kept["campaign"].to_numpy()
    order = np.argsort(campaign, kind="stable")
    ends = np.searchsorted(campaign[order], np.arange(len(site.policy.campaigns) + 1))
    for number, policy in enumerate(site.policy.campaigns):
        mine = kept.take(pa.array(order[ends[number] : ends[number + 1]]))
        ids = mine["entity_id"].cast(pa.string()).combine_chunks()
        scores, codes = mine["score"].to_numpy(), mine["code"].to_numpy()
        yield as_rows(site, policy.name, ids, scores, limit_audience(scores, codes, ids, policy, population), now_us)


def as_rows(
    site: AudienceSite, campaign: str, entity_ids: pa.Array, scores: Floats32, codes: Codes, now_us: int
) -> pa.RecordBatch:  # fmt: skip
    """Rows of the table of one campaign."""
    rows = len(entity_ids)
    return pa.record_batch(
        [
            pa.repeat(campaign, rows), entity_ids, pa.array(scores), pa.array(codes == SELECTED), NAMES.take(pa.array(codes)),
            pa.repeat(pa.scalar(site.version, pa.int64()), rows), pa.repeat(pa.scalar(now_us, TIME), rows),
            pa.array(np.zeros(rows, np.int64)),
        ],
        schema=AUDIENCE,
    )  # fmt: skip


def changelog_cursors(site: AudienceSite) -> dict[str, tuple[int, int] | None]:
    """Where the changelog of each shard stands, to be asked before users are read."""
    catalog, view = site.declared
    store = shared_store(site.store, ViewVersion.of(catalog, view))
    found = {str(shard): store.changes(shard).cursor for shard in range(catalog.log_partitions)}
    return {shard: None if cursor is None else (cursor.log_offset, cursor.sequence) for shard, cursor in found.items()}


def _declared(model: str) -> tuple[Catalog, View]:
    spec = load_spec(model)
    catalog = load_catalog(spec.catalog)
    return catalog, catalog.view(spec.view)


def _fits(entry: Field | None, value: Any) -> bool:
    return entry is not None and type(value) is (str if entry.dtype == "string" else int)


def _misfit(what: str, expected: str, got: str) -> SpecError:
    return SpecError(
        explain("policy does not fit its model", which=what, expected=expected, got=got, next_step="correct the policy")
    )
