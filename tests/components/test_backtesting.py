"""What is to be scored from a cutoff on, derived by hand: two households, three campaigns, two redemptions."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from components.backtesting import Outcomes, read_outcomes
from features.catalogs import load_catalog
from features.events import append_events
from features.layout import US_PER_S
from features.rows import TIME
from features.workspace import Workspace
from models.errors import EvaluationError

JOURNEY = load_catalog("complete_journey")

EVENTS = [
    # day of 2017, hour, household, type, campaign
    ("2017-03-01", 0, "h1", "campaign_received", "1"),
    ("2017-05-01", 0, "h2", "campaign_received", "2"),
    ("2017-05-01", 0, "h1", "campaign_received", "2"),
    ("2017-05-09", 12, "h1", "coupon_redeemed", "2"),
    ("2017-06-20", 0, "h1", "campaign_received", "3"),
    # Of campaign 2 still, though campaign 3 is the newer one.
    ("2017-06-25", 12, "h1", "coupon_redeemed", "2"),
    ("2017-06-28", 12, "h2", "basket", None),
    # Known 25 days later, 67 after campaign 2 was received: its redemptions have matured, those of campaign 3 have not.
    ("2017-07-07", 0, "h2", "basket", None),
]


def instant_us(day: str, hour: int = 0) -> int:
    return int(dt.datetime.fromisoformat(day).replace(hour=hour, tzinfo=dt.UTC).timestamp()) * US_PER_S


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("grocer"))
    times = pa.array([instant_us(day, hour) for day, hour, *_ in EVENTS]).cast(TIME)
    campaigns = [campaign for *_, campaign in EVENTS]
    table = pa.table(
        {
            "event_id": [f"e{row}" for row in range(len(EVENTS))], "entity_id": [event[2] for event in EVENTS],
            "event_type": [event[3] for event in EVENTS], "event_time": times, "ingest_time": times,
            "region": ["global"] * len(EVENTS), "campaign": pa.array(campaigns, pa.string()),
            "campaign_type": pa.array([campaign and f"Type {campaign}" for campaign in campaigns], pa.string()),
            "duration_days": pa.array([campaign and 30 + int(campaign) for campaign in campaigns], pa.int64()),
        }
    )  # fmt: skip
    append_events(made, JOURNEY, "household", table, source="events")
    return made


@pytest.fixture(scope="module")
def outcomes(workspace: Workspace) -> Outcomes:
    return read_outcomes(workspace, "redemption", instant_us("2017-05-01"))


def test_every_event_from_the_cutoff_on_is_a_row_with_what_it_says(outcomes: Outcomes) -> None:
    first, second = instant_us("2017-05-01"), instant_us("2017-06-20")
    about = [{"campaign_type": "Type 2", "duration_days": 32}, {"campaign_type": "Type 3", "duration_days": 33}]
    assert [(now_us, instances) for now_us, instances in outcomes.moments()] == [
        (first, [{"entity_id": "h2", "now": first, **about[0]}, {"entity_id": "h1", "now": first, **about[0]}]),
        (second, [{"entity_id": "h1", "now": second, **about[1]}]),
    ]


def test_an_outcome_counts_for_its_own_campaign_and_open_ones_are_told_apart(outcomes: Outcomes) -> None:
    # h1 redeemed campaign 2 twice, campaign 3 never. 66 days and a day of delay after 1 May is 7 July, the end of the log.
    assert outcomes.label.tolist() == [0, 1, 0]
    assert outcomes.matured.tolist() == [True, True, False]
    assert outcomes.log_end_us == instant_us("2017-07-07")


def test_a_cutoff_after_which_nothing_has_settled_is_refused(workspace: Workspace) -> None:
    for day in ("2017-05-02", "2017-07-01"):
        with pytest.raises(EvaluationError, match=r"^outcomes are not known: model 'redemption' at 2017-0"):
            read_outcomes(workspace, "redemption", instant_us(day))
