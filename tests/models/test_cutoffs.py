"""Base dates, times of day and splits of the rows that a run trains on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features.layout import DAY_S, US_PER_S
from features.rows import TIME
from models.cutoffs import (
    CENSORED,
    COLD,
    EMBARGO,
    TEST,
    TRAIN,
    VALIDATION,
    draw_base_dates,
    draw_cold_copies,
    hold_out,
    sample_rows,
)
from models.errors import TrainingError
from models.specs import CutoffPlan, LabelSpec, Learning, Population, load_spec

DAY = DAY_S * US_PER_S
LABEL = LabelSpec(("order",), horizon_s=20 * DAY_S, positive="absent", label_delay_s=DAY_S)
PLAN = CutoffPlan(every_s=10 * DAY_S, warm_up_s=5 * DAY_S)
SPEC = replace(load_spec("churn_retail"), label=LABEL, population=Population(("order",)), cutoffs=PLAN)


def make_log(customers: int = 200, *, until_day: int = 100) -> pa.Table:
    """One order a customer on day number % 10, known an hour later, and one on the last day, so that the log has an end."""
    rows = [(f"c{number:04d}", (number % 10) * DAY + number) for number in range(customers)] + [("c0000", until_day * DAY)]
    times = pa.array([at for _, at in rows], pa.int64())
    ingest = pa.array([at + 3_600 * US_PER_S for _, at in rows], pa.int64())
    return pa.table(
        {"entity_id": pa.array([entity for entity, _ in rows]), "event_type": pa.array(["order"] * len(rows)),
         "event_time": times.cast(TIME), "ingest_time": ingest.cast(TIME)}
    )  # fmt: skip


def test_the_newest_base_date_is_the_last_whose_whole_day_has_matured() -> None:
    # Rows lie in [base, base + 1 day) and mature 21 days later: by day 100 that is base 78, and 77 a microsecond earlier.
    assert draw_base_dates(PLAN, LABEL, first_known_us=0, known_at_us=100 * DAY)[-1] == 78 * DAY
    assert draw_base_dates(PLAN, LABEL, first_known_us=0, known_at_us=100 * DAY - 1)[-1] == 77 * DAY


def test_base_dates_count_back_to_the_warm_up_and_no_more_than_asked() -> None:
    dates = draw_base_dates(PLAN, LABEL, first_known_us=0, known_at_us=100 * DAY)
    assert (dates // DAY).tolist() == [8, 18, 28, 38, 48, 58, 68, 78]
    fewer = draw_base_dates(replace(PLAN, most=5), LABEL, first_known_us=0, known_at_us=100 * DAY)
    assert (fewer // DAY).tolist() == [38, 48, 58, 68, 78]


def test_a_history_without_room_for_training_before_the_test_is_refused_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"^history is too short .* next: import more history or move known_at forward$"):
        draw_base_dates(PLAN, LABEL, first_known_us=0, known_at_us=45 * DAY)


def test_training_rows_had_matured_at_the_tests_base_date_and_the_rest_are_embargoed() -> None:
    sample = sample_rows(make_log(), SPEC, lag_s=60, known_at_us=100 * DAY)
    split, base_day = sample.split, sample.now_us // DAY
    assert set(base_day[split == TEST]) == {78}
    # 78 - 22 days = 56: base dates up to 48 had matured by then, 58 and 68 had not.
    assert set(base_day[split == EMBARGO]) == {58, 68}
    assert set(base_day[np.isin(split, (TRAIN, VALIDATION))]) == {8, 18, 28, 38, 48}
    learned = sample.now_us[np.isin(split, (TRAIN, VALIDATION))]
    assert (learned + 21 * DAY).max() <= sample.now_us[split == TEST].min()
    assert (sample.now_us + 21 * DAY <= 100 * DAY).all()


def test_no_customer_is_both_trained_on_and_held_out() -> None:
    sample = sample_rows(make_log(), SPEC, lag_s=60, known_at_us=100 * DAY)
    split, ids = sample.split, np.array(sample.entity_ids.to_pylist())
    assert not set(ids[split == TRAIN]) & set(ids[split == VALIDATION])
    share = hold_out(pa.array([f"c{number}" for number in range(10_000)]), 0.2).mean()
    assert 0.18 < share < 0.22  # five standard errors of a fair draw: 0.2 +- 0.02


def test_rows_lie_at_all_times_of_day_and_a_customer_moves_about_from_date_to_date() -> None:
    sample = sample_rows(make_log(2_000), SPEC, lag_s=60, known_at_us=100 * DAY)
    hour = sample.now_us % DAY // (3_600 * US_PER_S)
    shares = np.bincount(hour, minlength=24) / len(hour)
    assert shares.min() > 0.03
    assert shares.max() < 0.055
    one = np.array(sample.entity_ids.to_pylist()) == "c0007"
    assert len(set((sample.now_us % DAY)[one])) == one.sum()


def test_a_row_is_drawn_only_once_its_customer_is_known() -> None:
    sample = sample_rows(make_log(), SPEC, lag_s=60, known_at_us=100 * DAY)
    first = {f"c{number:04d}": (number % 10) * DAY + number + 3_660 * US_PER_S for number in range(200)}
    assert all(now >= first[entity] for entity, now in zip(sample.entity_ids.to_pylist(), sample.now_us.tolist(), strict=True))
    assert {"c0009"} & set(sample.entity_ids.to_pylist())


def test_events_ingested_after_known_at_change_no_row() -> None:
    log = make_log()
    later = make_log(400, until_day=300)
    later = later.set_column(3, "ingest_time", pa.array([100 * DAY + 1] * later.num_rows, pa.int64()).cast(TIME))
    one, two = (sample_rows(events, SPEC, lag_s=60, known_at_us=100 * DAY) for events in (log, pa.concat_tables([log, later])))
    assert one.entity_ids.equals(two.entity_ids)
    assert one.now_us.tolist() == two.now_us.tolist()
    assert one.split.tolist() == two.split.tolist()


def test_large_draws_are_thinned_and_a_large_test_takes_no_more_than_a_third() -> None:
    whole = sample_rows(make_log(2_000), SPEC, lag_s=60, known_at_us=100 * DAY)
    thin = sample_rows(
        make_log(2_000), replace(SPEC, cutoffs=replace(PLAN, rows_at_most=5_000)), lag_s=60, known_at_us=100 * DAY
    )
    tests = [sample.split == TEST for sample in (whole, thin)]
    assert tests[0].sum() == 2_000
    assert 1_550 < tests[1].sum() < 1_780
    assert 4_700 < len(thin.now_us) < 5_300 < len(whole.now_us)


def test_rows_too_new_to_mature_are_drawn_for_methods_that_learn_from_them() -> None:
    learning = Learning("hazard", delay_buckets_s=(10 * DAY_S, 20 * DAY_S))
    matured, censored = (
        sample_rows(make_log(), spec, lag_s=60, known_at_us=100 * DAY) for spec in (SPEC, replace(SPEC, learning=learning))
    )
    assert CENSORED not in matured.split
    # After the test's base date 78, every ten days: 88 and 98, whose whole day lies before day 100.
    assert set((censored.now_us // DAY)[censored.split == CENSORED]) == {88, 98}
    others = censored.split != CENSORED
    assert censored.now_us[others].tolist() == matured.now_us.tolist()
    assert censored.split[others].tolist() == matured.split.tolist()


AT_ORDERS = replace(SPEC, cutoffs=replace(PLAN, at_events=("order",), warm_up_s=2 * DAY_S))


def make_visits() -> pa.Table:
    """Customer k % 20 orders on day k + 0.5, known a quarter of a day later, for 100 days; visits lie between."""
    rows = [
        (f"c{day % 20:02d}", kind, day * DAY + shift)
        for day in range(100)
        for kind, shift in (("visit", 0), ("order", DAY // 2))
    ]
    times = pa.array([at for _, _, at in rows], pa.int64())
    return pa.table(
        {"entity_id": pa.array([entity for entity, _, _ in rows]), "event_type": pa.array([kind for _, kind, _ in rows]),
         "event_time": times.cast(TIME), "ingest_time": pc.add(times, DAY // 4).cast(TIME)}
    )  # fmt: skip


def test_rows_at_events_lie_where_each_event_became_known_and_name_it() -> None:
    events = make_visits()
    sample = sample_rows(events, AT_ORDERS, lag_s=60, known_at_us=100 * DAY)
    assert sample.touch is not None
    drawn = events.take(pa.array(sample.touch))
    assert set(drawn["event_type"].to_pylist()) == {"order"}
    assert drawn["ingest_time"].cast(pa.int64()).to_pylist() == sample.now_us.tolist()
    assert drawn["entity_id"].to_pylist() == sample.entity_ids.to_pylist()
    # Known first at day 0.25, two days of warm-up: orders known from 2.75 on. A label takes 21 days, so the newest
    # matured row is the one known at 78.75.
    assert (sample.now_us / DAY).tolist() == [day + 0.75 for day in range(2, 79)]


def test_rows_at_events_are_split_by_time_as_base_dates_are() -> None:
    spec = replace(AT_ORDERS, learning=Learning("hazard", delay_buckets_s=(20 * DAY_S,)))
    sample = sample_rows(make_visits(), spec, lag_s=60, known_at_us=100 * DAY)
    splits = {"learned": (TRAIN, VALIDATION), "embargo": (EMBARGO,), "test": (TEST,), "censored": (CENSORED,)}
    day = {name: sample.now_us[np.isin(sample.split, names)] / DAY - 0.75 for name, names in splits.items()}
    # Matured by day 100: now <= 79. The newest ten days of those are the test: (69, 79]. Learned: now + 21 <= 69.
    assert sample.test_begins_us == 69 * DAY + 1
    assert {name: (days.min(), days.max()) for name, days in day.items()} == {
        "learned": (2, 47), "embargo": (48, 68), "test": (69, 78), "censored": (79, 99),
    }  # fmt: skip


def test_a_history_without_events_to_train_on_is_refused_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"^history is too short .* got no order to train on; next: [^\n]+$"):
        sample_rows(make_visits(), AT_ORDERS, lag_s=60, known_at_us=40 * DAY)


def test_all_test_rows_are_repeated_as_cold_and_a_share_of_the_others() -> None:
    sample = sample_rows(make_log(2_000), SPEC, lag_s=60, known_at_us=100 * DAY)
    rows, split = draw_cold_copies(sample, PLAN)
    assert rows[split == COLD].tolist() == np.flatnonzero(sample.split == TEST).tolist()
    assert split[split != COLD].tolist() == sample.split[rows[split != COLD]].tolist()
    others = int((sample.split != TEST).sum())
    # A fair draw of 5 % of about 14,000: four standard errors.
    assert abs(int((split != COLD).sum()) - 0.05 * others) < 4 * np.sqrt(0.05 * 0.95 * others)
    assert not len(draw_cold_copies(sample, replace(PLAN, cold_share=0))[0])


def test_a_log_without_entries_is_refused_in_one_line() -> None:
    log = make_log()
    log = log.set_column(1, "event_type", pa.array(["visit"] * log.num_rows))
    with pytest.raises(TrainingError, match="nobody belongs to the population: model 'churn_retail'; expected events of order"):
        sample_rows(log, SPEC, lag_s=60, known_at_us=100 * DAY)
