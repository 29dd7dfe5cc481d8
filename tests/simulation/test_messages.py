"""Users open messages at their own hours; sending hours decide which of them can be seen."""

from __future__ import annotations

import polars as pl
import pytest


def hours_from_best(played, event_type: str) -> pl.DataFrame:
    """Local hour of each message event and its circular distance, in whole hours, from the user's best hour."""
    users = played.read("truth_users").select("user_id", "best_hour_weekday", "best_hour_weekend")
    events = played.events.filter(pl.col("event_type") == event_type, pl.col("event_time") <= pl.col("ingest_time"))
    local = pl.col("event_time") + pl.duration(minutes=pl.col("utc_offset_minutes"))
    best = pl.when(local.dt.weekday() >= 6).then(pl.col("best_hour_weekend")).otherwise(pl.col("best_hour_weekday"))
    rows = events.join(users, on="user_id").with_columns(hour=local.dt.hour().cast(pl.Int64), best=best)
    apart = (pl.col("hour") - pl.col("best")).abs()
    return rows.select("user_id", "hour", "best", apart=pl.min_horizontal(apart, 24 - apart))


def test_opens_gather_at_the_best_hours_when_sending_is_uniform(quarter):
    sent, opened = hours_from_best(quarter, "message_sent"), hours_from_best(quarter, "message_opened")
    # Uniform sending: the 5 hours at most 2 away from the best are 5/24 of all.
    assert (sent["apart"] <= 2).mean() == pytest.approx(5 / 24, abs=0.01)
    assert (opened["apart"] <= 2).mean() > 0.6


def test_users_with_many_opens_show_their_best_hour(quarter):
    opened = hours_from_best(quarter, "message_opened")
    often = opened.filter(pl.len().over("user_id") >= 12)
    near = often.group_by("user_id").agg(near=(pl.col("apart") <= 3).mean())
    assert len(near) > 100
    assert (near["near"] > 0.5).mean() > 0.9


def test_biased_sending_moves_the_hours_at_which_opens_are_seen(quarter, play_scenario):
    biased = play_scenario(users=800, days=30, seed=3, truth_users=0, sending_hours="biased")
    sent = hours_from_best(biased, "message_sent")
    # Hours 9 to 11 weigh 10, the other 21 hours 1: 30 / 51 of all messages.
    assert sent["hour"].is_between(9, 11).mean() == pytest.approx(30 / 51, abs=0.02)
    seen_biased = hours_from_best(biased, "message_opened")["hour"].is_between(9, 11).mean()
    seen_uniform = hours_from_best(quarter, "message_opened")["hour"].is_between(9, 11).mean()
    assert seen_biased > 2 * seen_uniform


def test_best_hours_of_the_weekend_differ_for_half_of_the_users(quarter):
    users = quarter.read("truth_users")
    assert (users["best_hour_weekday"] != users["best_hour_weekend"]).mean() == pytest.approx(0.5, abs=0.03)
