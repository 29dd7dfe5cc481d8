"""A campaign's own history beside its content: as known at a row's time, zeros where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from audience.conftest import AS_OF_US, CONTENT, Shop
from planted.campaigns import DAY_US, plant_campaigns

from components.declarations import declarations_of
from components.joined_rows import join_as_known
from components.training_rows import build_training_rows
from features.catalogs.campaigns import HISTORY
from features.checks import check_catalog
from features.errors import DeclarationError
from features.events import append_events, read_events
from features.joins import Join
from features.rows import TIME
from features.workspace import Workspace
from transforms.scoring import close_stores

CATALOG, VIEW = declarations_of("audience")
(JOIN,) = VIEW.joins
HOUR_US, SECOND_US = 3_600_000_000, 1_000_000
NOON_US = 1_740_830_400_000_000
"""2025-03-01T12:00Z, a whole hour."""


def append(workspace: Workspace, *events: tuple[str, str, int, int]) -> None:
    """(kind, campaign, event time, ingest time) as events of the campaigns' log."""
    kinds, names, happened, known = zip(*sorted(events, key=lambda event: event[3]), strict=True)
    rows = pa.table({
        "event_id": [f"{kind}-{name}-{at}-{seen}" for kind, name, at, seen in zip(kinds, names, happened, known, strict=True)],
        "entity_id": list(names), "event_type": list(kinds), "event_time": pa.array(happened).cast(TIME),
        "ingest_time": pa.array(known).cast(TIME), "region": ["global"] * len(names),
    })  # fmt: skip
    append_events(workspace, CATALOG, "campaign", rows, source=f"by hand {min(known)}")


def history(workspace: Workspace, *rows: tuple[str, int]) -> list[tuple[int, ...]]:
    """The four counts of each (campaign, now)."""
    now_us = np.array([at for _, at in rows])
    found = join_as_known(workspace, CATALOG, JOIN, pa.array([name for name, _ in rows]), seen_us=now_us, now_us=now_us)
    return list(zip(*(found[name].to_pylist() for name in HISTORY), strict=True))


def test_a_row_counts_what_was_known_of_its_campaign_by_then_and_nothing_later(tmp_path: Path) -> None:
    # k1: deliveries at 0 h and 24 h, known at once; a response at 25 h that is known at 48 h only. The stream's lag is 60 s.
    workspace, day, minute = Workspace(tmp_path), 24 * HOUR_US, 60 * SECOND_US
    append(
        workspace,
        ("delivery", "k1", NOON_US, NOON_US),
        ("delivery", "k1", NOON_US + day, NOON_US + day),
        ("delivery", "k2", NOON_US + HOUR_US, NOON_US + HOUR_US),
        ("response", "k1", NOON_US + day + HOUR_US, NOON_US + 2 * day),
    )
    rows = [
        ("k1", NOON_US + minute - 1),  # a microsecond before the first may be seen
        ("k1", NOON_US + minute),
        ("k1", NOON_US + 2 * day + minute - 1),  # the response has happened 23 hours ago, and nobody knows
        ("k1", NOON_US + 2 * day + minute),
        # Seven days are 168 whole hours: the first delivery, of the hour from 12:00, is out from 12:00 seven days on.
        ("k1", NOON_US + 7 * day - 1),
        ("k1", NOON_US + 7 * day),
        ("k3", NOON_US + 7 * day),
        ("", NOON_US + 7 * day),
    ]
    # delivered within 7 days and ever, taken up within 7 days and ever
    expected = [(0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 0, 0), (2, 2, 1, 1), (2, 2, 1, 1), (1, 2, 1, 1), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert history(workspace, *rows) == expected
    # What becomes known after the last row changes none of them, whenever it happened.
    append(workspace, ("response", "k1", NOON_US, NOON_US + 8 * day), ("delivery", "k3", NOON_US + HOUR_US, NOON_US + 9 * day))
    assert history(workspace, *rows) == expected
    assert history(workspace, ("k3", NOON_US + 10 * day)) == [(0, 1, 0, 0)]


def test_every_training_row_has_the_counts_that_a_loop_over_the_log_gives(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    plant_campaigns(workspace, users=80, spread_days=6)
    build_training_rows(workspace, "audience", 0, tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet").slice(0, 600)
    sent = read_events(workspace, CATALOG, "user")
    sent = sent.filter(pc.equal(sent["event_type"], "campaign_sent"))
    touches = dict(zip(zip(sent["entity_id"].to_pylist(), sent["ingest_time"].to_pylist(), strict=True),
                       sent["campaign"].to_pylist(), strict=True))  # fmt: skip
    log = read_events(workspace, CATALOG, "campaign")
    owner, kind = np.array(log["entity_id"].to_pylist()), np.array(log["event_type"].to_pylist())
    known_us = log["ingest_time"].cast(pa.int64()).to_numpy() + 60 * SECOND_US
    totals = []
    for entity, now, us in zip(rows["entity_id"].to_pylist(), rows["now"].to_pylist(), rows["now"].cast(pa.int64()).to_pylist(),
                               strict=True):  # fmt: skip
        seen = (owner == touches[entity, now]) & (known_us <= us)
        totals.append([(seen & (kind == "delivery")).sum(), (seen & (kind == "response")).sum()])
    found = np.stack([rows["deliveries_count_lifetime"].to_numpy(), rows["responses_count_lifetime"].to_numpy()], axis=1)
    assert np.array_equal(found, totals)
    assert found[:, 0].max() > 20
    assert (found[:, 0] == 0).any(), "campaigns begin without a history"


def test_a_site_takes_the_history_of_its_campaigns_from_their_own_store(own_shop: Shop) -> None:
    log = read_events(own_shop.workspace, CATALOG, "campaign")
    mine = log.filter(pc.equal(log["entity_id"], "k033"))
    content = {"campaigns": [{"name": name, "content": CONTENT | {"category": "home"}, "threshold": 0.2}
                             for name in ("k033", "nobody-has-got-this")]}  # fmt: skip
    job = own_shop.site(content=content).job(AS_OF_US)
    delivered = pc.sum(pc.equal(mine["event_type"], "delivery")).as_py()
    assert delivered > 40
    assert job.campaigns["deliveries_count_lifetime"] == [delivered, 0]
    assert job.campaigns["responses_count_lifetime"] == [mine.num_rows - delivered, 0]
    # Forty days on nothing lies within seven days any more.
    later = own_shop.site(content=content).job(AS_OF_US + 40 * DAY_US)
    assert later.campaigns["deliveries_count_7d"] == [0, 0]
    close_stores()


@pytest.mark.parametrize(
    ("join", "named"),
    [
        (Join("campaign", "campaign", ("deliveries_count_8d",)), "deliveries_count_8d"),
        (Join("campaign", "category", HISTORY), "category"),
        (Join("campaign", "campaign", ()), "none"),
        (Join("shopper", "campaign", HISTORY), "shopper"),
    ],
)
def test_a_join_that_its_catalog_cannot_keep_is_refused(join: Join, named: str) -> None:
    views = tuple(replace(view, joins=(join,)) if view.name == VIEW.name else view for view in CATALOG.views)
    with pytest.raises(DeclarationError, match=named):
        check_catalog(replace(CATALOG, views=views))


def test_a_changed_history_is_another_view() -> None:
    signals = tuple(
        replace(signal, event_types=("response",)) if signal.name == "deliveries" else signal for signal in CATALOG.signals
    )
    changed = replace(CATALOG, signals=signals)
    assert changed.view_hash(VIEW) != CATALOG.view_hash(VIEW)
