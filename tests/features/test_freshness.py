from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from features.declarations import View
from features.freshness import measure_freshness
from features.online.addresses import ViewVersion, open_store
from features.online.store import NO_OFFSET, OnlineStore, Watermark
from features.rows import FRESHNESS

VIEW = View("buyer", 1, "user", (), freshness_sla_s=60)
SECOND = 1_000_000
NOW_US = 1_767_571_200 * SECOND


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    with open_store(str(tmp_path / "s"), ViewVersion(VIEW.key, "h", 4), create=True) as opened:
        yield opened


def test_age_counts_from_each_shards_watermark_and_is_late_only_beyond_the_promise(store: OnlineStore) -> None:
    """Shard 0 is as of 60 s ago: the promise to the second. Shard 1 is a microsecond older. Shard 2 is ahead of the asker's
    clock. Shard 3 was never filled."""
    for shard, as_of_us in enumerate((NOW_US - 60 * SECOND, NOW_US - 60 * SECOND - 1, NOW_US + 5 * SECOND)):
        store.commit(shard, {}, {}, Watermark(9 + shard, 1, as_of_us, 0), expected_previous=NO_OFFSET)
    table = measure_freshness(store, VIEW, now_us=NOW_US)
    assert table.schema == FRESHNESS
    assert table["shard"].to_pylist() == [0, 1, 2, 3]
    assert table["age_s"].to_pylist() == [60.0, 60.000001, 0.0, None]
    assert table["late"].to_pylist() == [False, True, False, True]
    assert table["log_offset"].to_pylist() == [9, 10, 11, -1]
    assert table["as_of"].to_pylist()[3] is None
    assert set(table["view_key"].to_pylist()) == {"buyer@1"}


def test_a_half_filled_shard_is_told(store: OnlineStore) -> None:
    store.commit(0, {}, {}, Watermark(NO_OFFSET, 0, 0, 0, filling_to=7), expected_previous=NO_OFFSET)
    assert measure_freshness(store, VIEW, now_us=NOW_US)["half_filled"].to_pylist() == [True, False, False, False]


def test_a_shard_without_events_that_is_kept_up_to_date_is_fresh(store: OnlineStore) -> None:
    store.commit(0, {}, {}, Watermark(NO_OFFSET, 0, NOW_US, 0), expected_previous=NO_OFFSET)
    first = measure_freshness(store, VIEW, now_us=NOW_US).slice(0, 1).to_pylist()[0]
    assert (first["age_s"], first["late"], first["log_offset"]) == (0.0, False, -1)
