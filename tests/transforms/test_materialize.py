"""Filling a store from the log: the same bytes in either store, again and again, and whole after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from parity.adversarial import draw_events, to_table

from features.catalogs import load_catalog
from features.codec import body_of
from features.errors import StoreError
from features.event_checks import STAMPED
from features.events import append_events, read_events
from features.layout import US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.online.store import NO_OFFSET, Lookup, OnlineStore, Watermark
from features.rows import event_schema
from features.workspace import Workspace
from transforms import materialize as job
from transforms.materialize import commit_all, materialize

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
VERSION = ViewVersion.of(CATALOG, VIEW)
ONE_SHARD = ViewVersion("v@1", "h", 1)
AS_OF_US = 2_000_000_000 * US_PER_S


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("workspace"))
    events = to_table(draw_events(users=40, seed=3), event_schema(CATALOG.attributes_of("user"))).drop_columns(list(STAMPED))
    append_events(made, CATALOG, "user", events, source="drawn")
    return made


def read_all(workspace: Workspace, address: str) -> Lookup:
    names = sorted(set(read_events(workspace, CATALOG, "user")["entity_id"].to_pylist()))
    with open_store(address, VERSION, readonly=True) as store:
        return store.get_many([*names, "nobody"])


def test_both_stores_are_filled_alike_and_filling_again_changes_nothing(
    workspace: Workspace, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "COMMIT_ENTITIES", 2)
    on_disk = str(tmp_path / "store")
    done = materialize(workspace, CATALOG, VIEW, as_of_us=AS_OF_US, store=on_disk)
    assert sum(shard.entities for shard in done) > 30
    first = read_all(workspace, on_disk)
    assert sum(map(bool, first.states)) > 30
    assert materialize(workspace, CATALOG, VIEW, as_of_us=AS_OF_US, store=on_disk) == done
    again = read_all(workspace, on_disk)
    assert (again.states, again.profiles) == (first.states, first.profiles)
    assert {mark.epoch for mark in again.watermarks.values()} == {2}
    materialize(workspace, CATALOG, VIEW, as_of_us=AS_OF_US, store=redis_url)
    in_redis = read_all(workspace, redis_url)
    assert (in_redis.states, in_redis.profiles, in_redis.watermarks) == (first.states, first.profiles, first.watermarks)


def test_a_later_fill_gives_what_one_from_nothing_gives(workspace: Workspace, tmp_path: Path) -> None:
    times = read_events(workspace, CATALOG, "user")["ingest_time"].cast("int64").to_pylist()
    middle_us = sorted(times)[len(times) // 2]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    materialize(workspace, CATALOG, VIEW, as_of_us=middle_us, store=one)
    early = read_all(workspace, one)
    materialize(workspace, CATALOG, VIEW, as_of_us=AS_OF_US, store=one)
    materialize(workspace, CATALOG, VIEW, as_of_us=AS_OF_US, store=two)
    later, fresh = read_all(workspace, one), read_all(workspace, two)
    assert [body_of(state) for state in later.states] == [body_of(state) for state in fresh.states]
    assert early.states != later.states
    with pytest.raises(Exception, match="backwards"):
        materialize(workspace, CATALOG, VIEW, as_of_us=middle_us, store=one)


class Interrupted(Exception):
    """The process is gone."""


class Interrupting:
    """A store whose writer dies before its n-th commit."""

    def __init__(self, store: OnlineStore, commits: int) -> None:
        self.view_key = store.view_key
        self._store, self._left = store, commits

    def claim(self, shard: int) -> Watermark:
        return self._store.claim(shard)

    def commit(self, shard: int, states: Mapping[str, bytes], *rest: Any, **named: Any) -> None:
        if self._left == 0:
            raise Interrupted
        self._left -= 1
        self._store.commit(shard, states, *rest, **named)


STATES = {f"u{number}": bytes([number + 1]) * 16 for number in range(10)}
REACHED = Watermark(50, 500, 500)


@pytest.fixture(params=["lmdb", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "lmdb" else str(request.getfixturevalue("redis_url"))


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_an_interrupted_fill_is_finished_by_doing_it_again(address: str, commits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "COMMIT_ENTITIES", 3)
    with open_store(address, ONE_SHARD, create=True) as store:
        with pytest.raises(Interrupted):
            commit_all(Interrupting(store, commits), 0, STATES, {}, REACHED)  # type: ignore[arg-type]
        half = store.watermark(0)
        assert (half.log_offset, half.filling_to) == (NO_OFFSET, 50 if commits else NO_OFFSET)
        commit_all(store, 0, STATES, {"u1": b"{}"}, REACHED)
        found = store.get_many([*STATES, "x"])
        assert found.states == [*STATES.values(), b""]
        assert found.watermarks == {0: Watermark(50, 500, 500, 2)}


def test_a_half_filled_shard_goes_on_to_a_later_position_but_to_no_earlier_one(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "COMMIT_ENTITIES", 3)
    with open_store(address, ONE_SHARD, create=True) as store:
        with pytest.raises(Interrupted):
            commit_all(Interrupting(store, 2), 0, STATES, {}, REACHED)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="half filled.*log offset 50 or beyond; got log offset 49"):
            commit_all(store, 0, STATES, {}, Watermark(49, 490, 490))
        commit_all(store, 0, {"u0": bytes(16)}, {}, Watermark(51, 510, 510))
        assert store.watermark(0) == Watermark(51, 510, 510, 3)


def test_a_refused_fill_writes_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "COMMIT_ENTITIES", 3)
    with open_store(address, ONE_SHARD, create=True) as store:
        commit_all(store, 0, STATES, {}, REACHED)
        with pytest.raises(StoreError, match="backwards"):
            commit_all(store, 0, dict.fromkeys(STATES, bytes(32)), {}, Watermark(40, 400, 400))
        assert store.get_many(list(STATES)).states == list(STATES.values())


def test_a_shard_without_events_still_says_how_fresh_it_is(address: str) -> None:
    with open_store(address, ONE_SHARD, create=True) as store:
        commit_all(store, 0, {}, {}, Watermark(NO_OFFSET, 0, 900))
        assert store.watermark(0) == Watermark(NO_OFFSET, 0, 900, 1)
