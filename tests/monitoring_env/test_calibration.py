"""False alarms keep to what was configured; drift of a known day is found and named. `make bench-drift` measures more of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.judge import Window, judge_window
from monitoring.drift.reference import Reference
from monitoring.drift.sample import WEEK_HOURS, Sample, concatenate
from monitoring.drift.settings import DriftSettings
from monitoring.verdicts import Outcome, Severity

HOUR_US = 3_600_000_000
MONDAY_US = 1_736_121_600_000_000
FEATURES, USERS = 6, 300
SETTINGS = DriftSettings(joint_features=0)
PLANS = pa.array(["basic", "pro", "trial"])


def draw(rng, at_us, season=0.0):
    """Six numbers, a plan and a score; with a season the numbers swing by day and are others at weekends."""
    hour = (at_us - MONDAY_US) / HOUR_US
    numbers = rng.standard_normal((len(at_us), FEATURES))
    numbers += season * (np.sin(2 * np.pi * hour / 24) + 2 * (hour // 24 % 7 >= 5))[:, None]
    plan = PLANS.take(pa.array(rng.integers(0, 3, len(at_us))))
    score = (1 / (1 + np.exp(-numbers[:, 0]))).astype(np.float32)
    names = tuple(f"f{number}" for number in range(FEATURES))
    return Sample(numbers.astype(np.float32), names, at_us, {"plan": plan}, score)


def draw_hour(rng, hour, season=0.0, users=USERS):
    start_us = MONDAY_US + hour * HOUR_US
    sample = draw(rng, start_us + rng.integers(0, HOUR_US, users), season)
    return Window("simulated/stable", start_us, start_us + HOUR_US, sample, users)


def draw_training(rng, rows, season=0.0):
    return draw(rng, MONDAY_US - rng.integers(1, 4 * WEEK_HOURS * HOUR_US, rows), season)


def failed(judgement):
    return [verdict.monitor for verdict in judgement.verdicts if verdict.outcome is Outcome.FAIL]


def test_thirty_null_days_raise_no_more_alarms_than_configured():
    # 20 a month are allowed here, so that there is something to count; 6 of the 10 that these families may spend are then
    # expected at most. The chance of more than 20 at 20 a month is under one half; of more than one a month, by one setting.
    rng = np.random.default_rng(5)
    reference = Reference("training", draw_training(rng, 10_000))
    many = replace(SETTINGS, alarms_per_month=20.0, effect_floor=0.0)
    alarms = {20: 0, 1: 0}
    for hour in range(30 * 24):
        window = draw_hour(rng, hour)
        if failed(judge_window(window, reference, many)):
            alarms[20] += 1
            alarms[1] += bool(failed(judge_window(window, reference, SETTINGS)))
    assert 1 <= alarms[20] <= 20
    assert alarms[1] <= 1


@pytest.mark.parametrize("kind", ["training", "weeks"])
def test_weekly_seasonality_raises_none_where_all_rows_would_alarm_at_once(kind):
    rng = np.random.default_rng(6)
    training = draw_training(rng, 60_000, season=0.5)
    naive = sum(
        bool(failed(judge_window(draw_hour(rng, h, 0.5), Reference("training", training), SETTINGS))) for h in (18, 125)
    )
    assert naive == 2
    alarms = []
    for hour in range(0, 7 * 24, 3):
        if kind == "training":
            reference = Reference("training", training, by_hours=True)
        else:
            earlier = [draw_hour(rng, hour - week * WEEK_HOURS, 0.5).sample for week in range(1, 5)]
            reference = Reference("weeks", concatenate(earlier))
        alarms += failed(judge_window(draw_hour(rng, hour, 0.5), reference, SETTINGS))
    assert alarms == []


@pytest.mark.parametrize("rows", [8_000, 1_500])
def test_seasons_raise_none_beside_few_training_rows_either_and_a_large_shift_is_found(rows):
    # 8,000 rows are 143 within an hour of any hour of the week; 1,500 are 27, and 187 within an hour of any hour of the day.
    rng = np.random.default_rng(11)
    reference = Reference("training", draw_training(rng, rows, season=0.5), by_hours=True)
    unsure = []
    for hour in range(0, 7 * 24, 3):
        judgement = judge_window(draw_hour(rng, hour, 0.5), reference, SETTINGS)
        assert failed(judgement) == []
        unsure += [verdict for verdict in judgement.verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
    assert bool(unsure) is (rows == 1_500)
    assert all((each.severity, "may be the season" in each.text) == (Severity.INFO, True) for each in unsure)
    window = draw_hour(rng, 134, 0.5)
    window.sample.numbers[:, 3] += 2
    judgement = judge_window(window, reference, SETTINGS)
    assert (failed(judgement), judgement.ranking.names[0]) == (["drift.training.features"], "f3")


def test_a_shift_from_a_known_day_is_found_within_hours_and_named():
    rng = np.random.default_rng(7)
    reference = Reference("training", draw_training(rng, 60_000, season=0.5), by_hours=True)
    start_h, found = 4 * 24, None
    for hour in range(start_h - 24, start_h + 24):
        window = draw_hour(rng, hour, 0.5)
        window.sample.numbers[:, 3] += 0.5 * (hour >= start_h)
        judgement = judge_window(window, reference, SETTINGS)
        if failed(judgement):
            found = hour, failed(judgement), judgement.ranking.names[0]
            break
    assert found is not None
    assert start_h <= found[0] < start_h + 4
    assert found[1:] == (["drift.training.features"], "f3")


def test_a_small_shift_below_the_effect_floor_never_pages_however_sure():
    rng = np.random.default_rng(8)
    old, new = (draw(rng, np.full(50_000, MONDAY_US)) for _ in range(2))
    new.numbers[:, 0] += 0.1  # a KS distance of 0.04
    judgement = judge_window(Window("a/b", 0, HOUR_US, new, 50_000), Reference("training", old), SETTINGS)
    assert judgement.ranking.names[0] == "f0"
    assert judgement.ranking.q_value[0] < 1e-3
    assert failed(judgement) == []


def test_labels_whose_rate_fell_page_and_noise_does_not():
    rng = np.random.default_rng(9)
    at_us = np.full(3_000, MONDAY_US)

    def labelled(rate):
        return replace(draw(rng, at_us), label=(rng.random(3_000) < rate).astype(np.float32))

    reference, day_us = Reference("training", labelled(0.10)), 24 * HOUR_US
    for rate, expected in ((0.10, []), (0.04, ["drift.training.labels"])):
        window = Window("churn/stable", 0, day_us, labelled(rate), 3_000)
        assert failed(judge_window(window, reference, SETTINGS)) == expected


def test_a_category_that_never_varies_is_judged_without_complaint():
    rng = np.random.default_rng(10)
    old, new = (replace(draw(rng, np.full(500, MONDAY_US)), categories={"c": pa.array(["x"] * 500)}) for _ in range(2))
    judgement = judge_window(Window("a/b", 0, HOUR_US, new, 500), Reference("training", old), SETTINGS)
    assert judgement.ranking.p_value[judgement.ranking.names.index("c")] == 1
