"""Audiences from state to Delta: by batch, by changes, by a request; equal, and fresh."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from audience.conftest import AS_OF_US, POLICY, USERS, Shop
from planted.campaigns import favourite_of

from components.audience_keeping import AudienceKeeper
from components.audiences import build_audiences
from components.declarations import declarations_of
from features import audiences
from features.catalogs.campaigns import HISTORY
from features.event_log.compaction import BatchHistory, compact, open_live_log
from features.event_log.port import append_by_entity
from features.layout import MINUTE_S, US_PER_S
from features.online.addresses import ViewVersion, beside, open_store
from features.rows import TIME
from features.workspace import Workspace
from models.errors import SpecError
from models.versions import NewVersion, register
from plumb.errors import CommandError
from plumb.server_process import predict, serving
from transforms.export import graph_inputs
from transforms.materialize import materialize
from transforms.plan import plan_graph
from transforms.scoring import close_stores
from transforms.stream import StreamJob, run_stream

MINUTE_US = MINUTE_S * US_PER_S
CATALOG, VIEW = declarations_of("audience")
DAY_US = 24 * 60 * MINUTE_US
PLUMB = [sys.executable, "-c", "from plumb.app import main; main()"]
WAIT_S = 120


def members(site: Any) -> set[tuple[str, str]]:
    rows = audiences.read_audiences(site.folder).rows.filter("member")
    return set(zip(rows["campaign"], rows["entity_id"], strict=True))


def test_towers_apart_together_and_by_candidate_give_one_score(shop: Shop) -> None:
    rows = pq.read_table(shop.run / "rows.parquet").slice(0, 200)
    inputs = {name: tf.constant(values) for name, values in graph_inputs(rows, plan_graph(CATALOG, VIEW)).items()}
    request = {entry.name for entry in VIEW.request}
    own = {name: tensor for name, tensor in inputs.items() if name not in request}
    sent = {name: tensor for name, tensor in inputs.items() if name in request}
    served = tf.saved_model.load(str(shop.model / "saved_model")).signatures
    pairs = served["serving_default"](**inputs)["score"].numpy()
    matrix = served["match"](users=served["users"](**own)["vector"], campaigns=served["campaigns"](**sent)["vector"])["score"]
    candidates = served["candidates"](**inputs, owner=tf.range(200, dtype=tf.int64))["score"].numpy()
    assert pairs.std() > 0.05
    assert np.abs(np.diag(matrix.numpy()) - pairs).max() <= 1e-6
    assert np.abs(candidates - pairs).max() <= 1e-6


def test_a_build_finds_those_who_buy_in_the_campaigns_category(own_shop: Shop) -> None:
    site = own_shop.site()
    sweep = build_audiences(site, now_us=AS_OF_US)
    assert sweep.population == USERS
    found = audiences.read_audiences(site.folder).rows
    fits = [favourite_of(int(name[1:])) == campaign.removesuffix("-week") for campaign, name in members(site)]
    assert len(fits) > 40
    assert np.mean(fits) > 0.9
    assert found.filter("member").group_by("campaign").len().filter(pl.col("campaign") == "home-week")["len"].to_list() == [20]
    capped = found.filter(pl.col("reason") == "over_size")
    assert set(capped["campaign"]) == {"home-week"}
    assert capped["score"].max() <= found.filter(pl.col("member") & (pl.col("campaign") == "home-week"))["score"].min()


def append(shop: Shop, user: str, count: int, at_us: int) -> None:
    """So many purchases of produce by one user within a minute, known at once."""
    when = pa.array([at_us - number * 1_000_000 for number in range(count)]).cast(TIME)
    rows = pa.table({
        "event_id": [f"burst-{user}-{number}" for number in range(count)], "entity_id": [user] * count,
        "event_type": ["purchase"] * count, "event_time": when, "region": ["global"] * count,
        "category": ["produce"] * count, "amount_cents": pa.array([4_000] * count), "saved_cents": pa.array([0] * count),
    })  # fmt: skip
    with open_live_log(shop.workspace, CATALOG, "user", durability="process") as log:
        append_by_entity(log, rows, now_us=at_us)


def fold(shop: Shop, now_us: int) -> None:
    """The stream, until it has caught up; it may not have the store open beside a reader of this process."""
    close_stores()
    address = str(shop.workspace.online(VIEW.key))
    job = StreamJob(
        catalog=CATALOG, view=VIEW, open_log=partial(open_live_log, shop.workspace, CATALOG, "user"),
        open_store=partial(open_store, address, ViewVersion.of(CATALOG, VIEW), create=True),
        history=BatchHistory(shop.workspace.root, CATALOG, "user"), now_us=partial(int, now_us),
        stop_requested=partial(bool, 0), report=print,
    )  # fmt: skip
    run_stream(job, tuple(range(CATALOG.log_partitions)), until_caught_up=True)


def test_a_burst_comes_in_at_once_a_quiet_user_leaves_at_a_sweep_and_a_rebuild_agrees(own_shop: Shop, tmp_path_factory) -> None:
    """A hand clock throughout; the log and the store are the embedded ones."""
    site = own_shop.site()
    keeper = AudienceKeeper(site)
    boundary_us = AS_OF_US // (15 * MINUTE_US) * 15 * MINUTE_US + 15 * MINUTE_US
    assert keeper.step(boundary_us).kind == "sweep"
    assert keeper.step(boundary_us + MINUTE_US).kind == "nothing"
    outside = next(user for user in sorted({f"u{n:05d}" for n in range(0, USERS, 3)})
                   if ("produce-week", user) not in members(site))  # fmt: skip
    burst_us = boundary_us + 2 * MINUTE_US
    append(own_shop, outside, 12, burst_us)
    fold(own_shop, burst_us + US_PER_S)
    started = time.monotonic()
    step = keeper.step(burst_us + MINUTE_US)
    took_s = time.monotonic() - started
    assert (step.kind, step.users) == ("changes", 1)
    assert ("produce-week", outside) in members(site)
    assert took_s < 60, "a minute of real time from a commit to the table"

    # Nobody does anything for 60 days: no changelog entry, and still everybody leaves at the next sweep.
    later_us = burst_us + 60 * DAY_US
    before = members(site)
    step = keeper.step(later_us)
    assert step.kind == "sweep"
    assert ("produce-week", outside) in before - members(site)
    assert step.went > step.came, "those whose last seven days are over make room for some whom the cap had kept out"

    # Some come back; then a rebuild of log and store elsewhere by the batch path says the same of everybody.
    for number, user in enumerate(sorted({name for _, name in before})[:12]):
        append(own_shop, user, 3 + number, later_us + MINUTE_US + number)
    fold(own_shop, later_us + 2 * MINUTE_US)
    assert keeper.step(later_us + 2 * MINUTE_US).kind == "changes"
    end_us = (later_us // (15 * MINUTE_US) + 1) * 15 * MINUTE_US
    assert keeper.step(end_us).kind == "sweep"
    incremental = audiences.read_audiences(site.folder).rows
    close_stores()
    rebuilt = rebuild(own_shop, tmp_path_factory.mktemp("rebuilt"), end_us)
    compare(incremental, rebuilt)
    assert incremental.filter("member").height > 0


def rebuild(shop: Shop, folder: Any, now_us: int) -> pl.DataFrame:
    with open_live_log(shop.workspace, CATALOG, "user") as log:
        compact(log, shop.workspace, CATALOG, "user", now_us=now_us)
    store = str(folder / "store")
    for view in CATALOG.views:
        materialize(shop.workspace, CATALOG, view, as_of_us=now_us, store=beside(store, view.key) if view != VIEW else store)
    other = shop.site(Workspace(folder), store=store)
    build_audiences(other, now_us=now_us)
    return audiences.read_audiences(other.folder).rows


def compare(incremental: pl.DataFrame, rebuilt: pl.DataFrame) -> None:
    same = ["campaign", "entity_id", "member", "reason", "scored_at"]
    assert incremental.select(same).equals(rebuilt.select(same))
    assert np.abs(incremental["score"].to_numpy() - rebuilt["score"].to_numpy()).max() <= 1e-6


def test_changes_between_sweeps_equal_a_rebuild_at_their_time_where_everybody_changed(own_shop: Shop, tmp_path_factory) -> None:
    """Everybody buys after the sweep, so every row is scored by the changelog; places of the full audience move among them."""
    site = own_shop.site()
    keeper = AudienceKeeper(site)
    boundary_us = (AS_OF_US // (15 * MINUTE_US) + 1) * 15 * MINUTE_US
    keeper.step(boundary_us)
    for user in range(USERS):
        append(own_shop, f"u{user:05d}", 1 + user % 5, boundary_us + MINUTE_US)
    fold(own_shop, boundary_us + 2 * MINUTE_US)
    now_us = boundary_us + 3 * MINUTE_US
    step = keeper.step(now_us)
    assert (step.kind, step.users) == ("changes", USERS)
    incremental = audiences.read_audiences(site.folder).rows
    close_stores()
    compare(incremental, rebuild(own_shop, tmp_path_factory.mktemp("rebuilt"), now_us))


def test_an_erased_user_leaves_table_and_older_versions_and_the_keeper_goes_on(own_shop: Shop) -> None:
    site = own_shop.site()
    keeper = AudienceKeeper(site)
    boundary_us = (AS_OF_US // (15 * MINUTE_US) + 1) * 15 * MINUTE_US
    keeper.step(boundary_us)
    gone = sorted(members(site))[0][1]
    close_stores()
    with open_store(site.store, ViewVersion.of(CATALOG, VIEW)) as store:
        store.erase([gone])
    assert audiences.erase(site.folder, [gone]) >= 1
    step = keeper.step(boundary_us + MINUTE_US)
    assert (step.kind, step.users) == ("changes", 1)
    assert gone not in pl.scan_delta(str(site.folder)).select("entity_id").collect()["entity_id"].to_list()


def test_a_policy_that_does_not_fit_the_model_is_refused_by_name(shop: Shop) -> None:
    wrong = POLICY | {"counted_by": "campaigns_received_count_8d"}
    with pytest.raises(SpecError, match="campaigns_received_count_8d"):
        shop.site(content=wrong).check()


def test_a_server_gives_the_scores_of_the_table(own_shop: Shop, tmp_path: Path) -> None:
    """Batch and KServe: every pair of forty users by three campaigns, two of them with a history of their own, at one time."""
    names = ["k033", "k034", "grocery-week"]
    campaigns = [entry | {"name": name, "threshold": 0.0, "size": None}
                 for name, entry in zip(names, POLICY["campaigns"], strict=True)]  # fmt: skip
    site = own_shop.site(content=POLICY | {"campaigns": campaigns})
    assert [count > 40 for count in site.job(AS_OF_US).campaigns["deliveries_count_lifetime"]] == [True, True, False]
    build_audiences(site, now_us=AS_OF_US)
    rows = audiences.read_audiences(site.folder).rows
    assert rows.height == USERS * 3
    close_stores()
    version = NewVersion("audience", AS_OF_US, "run", True, "beats all", VIEW.key, CATALOG.view_hash(VIEW), "graph", {})
    register(own_shop.workspace, version, shop_model(own_shop, tmp_path))
    users = [f"u{number:05d}" for number in range(40)]
    content = [dict(campaign.content) for campaign in site.policy.campaigns]
    named = [{"campaign": name} | each for name, each in zip(names, content, strict=True)]
    ask = partial(map, lambda user: {"entity_id": user, "now": AS_OF_US})
    with serving(own_shop.workspace, "audience", version=1, store=Path(site.store), log=tmp_path / "server.log") as client:
        replies = predict(client, "audience", [each | {"candidates": named} for each in ask(users)], features=False)
        alone = predict(client, "audience", [each | named[0] for each in ask(users)], features=True)
        unnamed = predict(client, "audience", [each | content[0] for each in ask(users[:3])], features=True)
        with pytest.raises(CommandError, match="unknown request field"):
            predict(client, "audience", [{"entity_id": "u00001", "deliveries_count_7d": 5}], features=False)
        with pytest.raises(CommandError, match="entity id"):
            predict(client, "audience", [{"entity_id": "u00001", "campaign": "k" * 5_000}], features=False)
    served = {(name, reply["entity_id"]): score for reply in replies
              for name, score in zip(names, reply["scores"], strict=True)}  # fmt: skip
    mine = rows.filter(pl.col("entity_id").is_in(users))
    assert len(served) == mine.height == 120
    batch = dict(zip(zip(mine["campaign"], mine["entity_id"], strict=True), mine["score"], strict=True))
    assert max(abs(served[pair] - batch[pair]) for pair in served) <= 1e-6
    assert max(abs(reply["score"] - batch["k033", reply["entity_id"]]) for reply in alone) <= 1e-6
    # What the model saw are the counts that batch took from the campaigns' store, and none of a campaign that is not named.
    counts = site.job(AS_OF_US).campaigns
    assert all(shown["features"][name] == counts[name][0] for shown in alone for name in HISTORY)
    assert not any(shown["features"][name] for shown in unnamed for name in HISTORY)


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while text not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert text in log.read_text()


def test_the_command_keeps_sweeps_follows_a_burst_and_stops_when_told(own_shop: Shop, tmp_path: Path) -> None:
    now_us = time.time_ns() // 1_000
    root = own_shop.workspace.root
    version = NewVersion("audience", now_us, "run", True, "beats all", VIEW.key, CATALOG.view_hash(VIEW), "graph", {})
    register(own_shop.workspace, version, shop_model(own_shop, tmp_path))
    policy, log = tmp_path / "policy.yaml", tmp_path / "keep.log"
    policy.write_text(yaml.safe_dump(POLICY))
    close_stores()
    command = [*PLUMB, "--workspace", str(root), "audience", "keep", str(policy), "--version", "1", "--poll-every", "0.2",
               "--sweep-every", "86400"]  # fmt: skip
    with log.open("wb") as output:
        keeping = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(log, f"audience 1: sweep, {USERS} users scored", keeping)
        append(own_shop, "u00007", 12, now_us - 2 * MINUTE_US)
        fold(own_shop, now_us + US_PER_S)
        wait_for(log, "audience 1: changes, 1 user scored", keeping)
        keeping.send_signal(signal.SIGTERM)
        assert keeping.wait(30) == 0
    finally:
        keeping.kill()
        close_stores()
    first, *others = log.read_text().splitlines()
    assert first == "audience 1: keeping 3 campaigns fresh, everybody scored every 86,400 s"
    assert all(line.startswith("audience 1: ") for line in others), "nothing but its own lines"
    shown = subprocess.run(
        [*PLUMB, "--workspace", str(root), "audience", "show", "--json"], capture_output=True, text=True, check=True
    )
    facts = json.loads(shown.stdout)
    assert (facts["sweep"]["population"], facts["sweep"]["sequence"]) == (USERS, 1)
    assert [entry["campaign"] for entry in facts["campaigns"]] == ["grocery-week", "home-week", "produce-week"]


def shop_model(shop: Shop, folder: Path) -> Path:
    """The model as a run leaves it, for the registry to take."""
    return Path(shutil.copytree(shop.model, folder / "registering"))
