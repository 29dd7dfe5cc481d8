"""Hours of the week: derived by hand, in their limits, across both changes of the clock, fitted where the truth is known."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from features.layout import DAY_S
from features.slots import FACTS, OUTPUT_NAMES, SLOTS
from features.zones import CLOCK_HORIZON_S
from models.slot_evaluation import sum_by_row
from models.slot_layer import SlotPosterior
from models.slot_learning import LAYER, fit_slots, predict_observed
from models.slot_rhythm import Rhythm, as_tensors, expect_week, fit_rhythm, place_users, vary_ratio
from models.slot_rows import SlotRows, count_slots, find_columns
from models.slot_schedule import wait_until
from models.slot_spec import STRENGTHS
from models.specs import load_spec

SPEC = load_spec("send_time")
NAMES = (
    *(f"opens_by_local_hour_count_lifetime_h{slot:03d}" for slot in range(SLOTS)), "opens_by_local_hour_count_lifetime_unknown",
    *(f"sends_by_local_hour_count_lifetime_h{slot:03d}" for slot in range(SLOTS)),
    "country_0", "country_other", "local_week_s", "clock_change_in_s", "clock_change_s",
)  # fmt: skip
COLUMNS = find_columns(NAMES, SPEC.slots)
UNMIXED = {"hour_precision": 9.0, "same_day": 20.0, "same_kind": -20.0, "all_days": -20.0, "carry": -30.0, "rhythm": -30.0}
"""A kernel that leaves every event where it is: at exp(9) the next hour gets exp(-276)."""
NEVER_RAW, ALWAYS_RAW, TINY = 30.0, -30.0, -30.0


def make_layer(**strengths: float) -> SlotPosterior:
    layer = SlotPosterior({name: list(places) for name, places in vars(COLUMNS).items()}, 10.0, name=LAYER)
    layer.build((None, len(NAMES)))
    values = dict.fromkeys(STRENGTHS, 0.0) | {"sends": TINY} | UNMIXED | strengths
    layer.strengths.assign(np.array([values[name] for name in STRENGTHS], np.float32))
    return layer


def row(opens: dict[int, int], sends: dict[int, int], *, segment: int = 0, week_s: float = 0.0) -> np.ndarray:
    values = np.zeros((1, len(NAMES)), np.float32)
    for places, counts in ((COLUMNS.acts, opens), (COLUMNS.sends, sends)):
        for slot, count in counts.items():
            values[0, places[slot]] = count
    values[0, COLUMNS.segments[segment]] = 1
    values[0, list(COLUMNS.clock)] = (week_s, CLOCK_HORIZON_S, 0)
    return values


def fact(outputs: np.ndarray, name: str) -> float:
    return float(outputs[0, 1 + SLOTS + FACTS.index(name)])


def test_two_opens_of_many_sends_and_one_of_few_as_derived_by_hand() -> None:
    """Nine messages at slot 9, two opened; one at slot 20, opened. In units of an even share the propensities are 0.9 * 168 and
    0.1 * 168, so in units of 1/168 the weights are 10/9 and 10. Then
        sum w o   = 2 * 10/9 + 10 = 110/9, of which slot 9 has 20/110 = 2/11 and slot 20 has 9/11
        sum w^2 o = 2 * 100/81 + 100 = 8300/81, so n = (110/9)^2 / (8300/81) = 12100/8300 = 121/83
    The prior is even, with the strength of 2 events: p = (n * share + 2/168) / (n + 2), and now is Monday 09:00, slot 9.
    """
    outputs = make_layer(raw=NEVER_RAW, user=np.log(2)).call(tf.constant(row({9: 2, 20: 1}, {9: 9, 20: 1}, week_s=9 * 3_600.0)))
    outputs = outputs.numpy()
    n = 121 / 83
    at_9, at_20, elsewhere = ((n * share + 2 / 168) / (n + 2) for share in (2 / 11, 9 / 11, 0))
    assert outputs[0, 1 + 9] == pytest.approx(at_9, rel=1e-5)
    assert outputs[0, 1 + 20] == pytest.approx(at_20, rel=1e-5)
    assert outputs[0, 1 + 100] == pytest.approx(elsewhere, rel=1e-5)
    assert fact(outputs, "effective_sample_size") == pytest.approx(n, rel=1e-5)
    assert fact(outputs, "own") == pytest.approx(n / (n + 2), rel=1e-5)
    assert [fact(outputs, name) for name in ("now", "best_1", "best_2", "wait_s_1")] == [9, 20, 9, 11 * 3_600]
    assert fact(outputs, "gain_1") == pytest.approx(at_20 / at_9 - 1, rel=1e-4)
    assert fact(outputs, "gain_low_1") < fact(outputs, "gain_1") < fact(outputs, "gain_high_1")
    assert [fact(outputs, name) for name in ("gain_2", "gain_low_2", "gain_high_2")] == pytest.approx([0, 0, 0], abs=1e-6)
    assert outputs[0, 0] == pytest.approx(1 - at_9 / at_20, rel=1e-5)


def test_without_correction_the_hour_that_was_sent_to_most_looks_best() -> None:
    layer = make_layer(raw=NEVER_RAW, user=np.log(2))
    layer.columns = layer.columns.__class__(COLUMNS.acts, (), COLUMNS.segments, COLUMNS.clock)
    assert fact(layer.call(tf.constant(row({9: 2, 20: 1}, {9: 9, 20: 1}))).numpy(), "best_1") == 9


def test_where_an_action_is_seen_is_the_preference_times_the_propensity() -> None:
    """As above: observed is proportional to p * pi; slots without sends are never seen in."""
    layer = make_layer(raw=NEVER_RAW, user=np.log(2))
    seen = layer.observed(tf.constant(row({9: 2, 20: 1}, {9: 9, 20: 1}))).numpy()[0]
    n = 121 / 83
    parts = np.array([(n * 2 / 11 + 2 / 168) * 0.9, (n * 9 / 11 + 2 / 168) * 0.1])
    assert seen[[9, 20]] == pytest.approx(parts / parts.sum(), rel=1e-5)


def test_an_open_in_the_hour_after_many_sends_is_what_they_carried_over() -> None:
    """Ninety messages at slot 11 and ten at 12, half of whose effect comes an hour later: propensities are 0.45 at slot 11,
    0.05 + 0.45 at 12, and 0.05 at 13, so that opens at the three count as 1 / 0.45 to 1 / 0.5 to 1 / 0.05; all weights are
    below the cap, for 1 / (168 * 0.05) is 0.119.
    """
    layer = make_layer(raw=NEVER_RAW, user=TINY, carry=0.0)
    found = layer.call(tf.constant(row({11: 1, 12: 1, 13: 1}, {11: 90, 12: 10}))).numpy()[0, 1:]
    weights = np.array([1 / 0.45, 1 / 0.5, 1 / 0.05])
    assert found[[11, 12, 13]] == pytest.approx(weights / weights.sum(), rel=1e-4)


def test_a_user_without_data_gets_the_segment_and_a_segment_without_data_everyone() -> None:
    layer = make_layer(raw=ALWAYS_RAW, user=0.0, segment=0.0)
    acts = np.zeros((2, SLOTS), np.float32)
    acts[0, [30, 31]] = 3, 1
    layer.set_prior(acts, np.full(SLOTS, 1 / SLOTS, np.float32))
    known = layer.call(tf.constant(row({}, {}))).numpy()
    assert known[0, [1 + 30, 1 + 31]] == pytest.approx([0.75, 0.25], rel=1e-4)
    # Of its 4 actions and 1 of strength 4/5 of the segment's word is its own.
    assert (fact(known, "effective_sample_size"), fact(known, "own")) == pytest.approx((0, 0), abs=1e-9)
    assert fact(known, "segment") == pytest.approx(4 / 5, rel=1e-5)
    unknown = layer.call(tf.constant(row({}, {}, segment=1))).numpy()
    assert unknown[0, [1 + 30, 1 + 31]] == pytest.approx([0.75, 0.25], rel=1e-4)
    assert fact(unknown, "segment") == 0


def test_a_user_with_much_data_gets_her_own_hours() -> None:
    layer = make_layer(raw=0.0, user=3.0)
    own = layer.call(tf.constant(row({50: 40_000, 51: 10_000}, dict.fromkeys(range(SLOTS), 1_000)))).numpy()
    assert own[0, [1 + 50, 1 + 51]] == pytest.approx([0.8, 0.2], abs=0.005)
    assert fact(own, "own") > 0.99


counts = st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 50), max_size=12)


@given(opens=counts, sends=counts, week_s=st.integers(0, 7 * DAY_S - 1), precision=st.floats(-3, 5))
@settings(deadline=None, max_examples=12)
def test_it_is_a_distribution_and_waiting_for_the_best_never_loses(opens, sends, week_s, precision) -> None:
    mixed = {"same_day": 0.0, "same_kind": 0.0, "all_days": 0.0, "hour_precision": precision}
    layer = make_layer(raw=1.0, user=1.0, sends=1.0, **mixed)
    outputs = layer.call(tf.constant(row(opens, sends, week_s=float(week_s)))).numpy()
    assert np.isfinite(outputs).all()
    assert outputs[0, 1 : 1 + SLOTS].sum() == pytest.approx(1, rel=1e-4)
    assert (outputs[0, 1 : 1 + SLOTS] > 0).all()
    assert 0 <= outputs[0, 0] < 1
    assert fact(outputs, "gain_1") >= -1e-4
    assert fact(outputs, "effective_sample_size") <= sum(opens.values()) * (1 + 1e-5)
    assert layer.kernel().numpy().sum(axis=1) == pytest.approx(np.ones(SLOTS), rel=1e-5)


def clock(week_s: float, change_in_s: float = CLOCK_HORIZON_S, change_s: float = 0.0) -> tf.Tensor:
    return tf.constant([[week_s, change_in_s, change_s]], tf.float32)


def waits(slots: list[int], *readings: float) -> list[float]:
    return wait_until(tf.constant([slots], tf.int32), clock(*readings)).numpy()[0].tolist()


def test_waiting_counts_from_the_hour_one_is_in() -> None:
    # Tuesday 10:30 is slot 34 of the week: within it, half an hour before the next, and 167.5 hours before the last.
    half_past = 34 * 3_600.0 + 1_800
    assert waits([34, 35, 33], half_past) == [0, 1_800, 167 * 3_600 - 1_800]


def test_an_hour_that_the_clock_skips_begins_where_it_leaps() -> None:
    # Sunday 00:00, put forward from 02:00 to 03:00 in two hours: 01:00 comes in one hour; 02:00, which does not exist, and
    # 03:00 both in two; 04:00 in three.
    sunday = 144 * 3_600.0
    assert waits([145, 146, 147, 148], sunday, 7_200, 3_600) == [3_600, 7_200, 7_200, 3 * 3_600]


def test_an_hour_that_comes_twice_is_taken_at_its_first_time() -> None:
    # Sunday 00:00, put back from 02:00 to 01:00 in two hours: 01:00 first comes in one hour, 02:00 only in three.
    sunday = 144 * 3_600.0
    assert waits([145, 146, 0], sunday, 7_200, -3_600) == [3_600, 3 * 3_600, 25 * 3_600]


def test_ties_share_what_is_left_of_the_top() -> None:
    distribution = np.zeros((1, SLOTS))
    distribution[0, :4] = 0.4, 0.2, 0.2, 0.2
    actions = np.zeros((1, SLOTS), np.float32)
    actions[0, [0, 1]] = 1, 2
    found = sum_by_row(distribution, actions)
    # Slot 0 leads; three slots share places two to four, of which the top three has two.
    assert (found["top1"][0], found["top3"][0]) == pytest.approx((1, 1 + 2 * 2 / 3))
    assert found["nll"][0] == pytest.approx(-np.log(0.4) - 2 * np.log(0.2))


def test_lists_of_slots_become_counts() -> None:
    counted = count_slots(pa.chunked_array([pa.array([[3, 3, 167], None, []], pa.list_(pa.int16()))]))
    assert (counted.sum(axis=1).tolist(), counted[0, 3], counted[0, 167]) == ([3, 0, 0], 2, 1)


def draw_rows(users: int, *, seed: int) -> tuple[SlotRows, np.ndarray]:
    """Users with a best hour each, on every day, who were sent to ten times as often at 9 to 11; opens before and after."""
    rng = np.random.default_rng(seed)
    best = rng.integers(0, 24, users)
    apart = np.abs((np.arange(SLOTS) % 24)[None, :] - best[:, None])
    rate = 0.05 + 0.9 * np.exp(-0.5 * (np.minimum(apart, 24 - apart) / 2) ** 2)
    policy = np.where(np.isin(np.arange(SLOTS) % 24, (9, 10, 11)), 10.0, 1.0)
    sends = rng.multinomial(120, policy / policy.sum(), users)
    opens, later = rng.binomial(sends, rate), rng.binomial(rng.multinomial(60, policy / policy.sum(), users), rate)
    transformed = np.zeros((users, len(NAMES)), np.float32)
    transformed[:, list(COLUMNS.acts)], transformed[:, list(COLUMNS.sends)] = opens, sends
    transformed[:, COLUMNS.segments[0]] = 1
    ids = pa.array([f"u{number}" for number in range(users)])
    split = np.full(users, "train")
    rows = SlotRows(ids, split, transformed, transformed, NAMES, later.astype(np.float32), COLUMNS)
    return rows, best


def test_where_a_day_lies_as_derived_by_hand() -> None:
    """The shape is 0.6 at the centre and 0.2 elsewhere. Of ten messages at 9 and ten at 20 on a Monday, one at 20 was opened;
    with r = 1 a centre c weighs g(20 - c) / (1 + 10 g(9 - c) + 10 g(20 - c))^2:
        9: 0.2 / (1 + 6 + 2)^2 = 0.2 / 81     20: 0.6 / 81     each of the other 22: 0.2 / (1 + 2 + 2)^2 = 0.2 / 25
    and E[a] is 2 / 9, 2 / 9 and 2 / 5. The weekend knows nothing more than that it lies where working days do.
    """
    shape = np.full(24, 0.2)
    shape[0] = 0.6
    shifts = np.full(24, 1e-9)
    shifts[0] = 1.0
    common = as_tensors(Rhythm(shape, np.full(24, 1 / 24), shifts, np.ones(7), 1.0))
    acts, sends = np.zeros((2, 1, SLOTS), np.float32)
    acts[0, 20], sends[0, [9, 20]] = 1, 10
    placed = place_users(common, tf.constant(acts), tf.constant(sends))
    weights = np.full(24, 0.2 / 25)
    weights[[9, 20]] = 0.2 / 81, 0.6 / 81
    weights /= weights.sum()
    assert placed.hours.numpy()[0].sum(axis=1) == pytest.approx(weights, rel=1e-4)
    assert placed.hours.numpy()[0].sum(axis=0) == pytest.approx(weights, rel=1e-4)
    ready = np.full(24, 2 / 5)
    ready[[9, 20]] = 2 / 9
    week = expect_week(common, placed).numpy()[0]
    rates = np.array([(weights * ready * np.where(np.arange(24) == hour, 0.6, 0.2)).sum() for hour in range(24)])
    assert week.reshape(7, 24) == pytest.approx(np.tile(rates / rates.sum() / 7, (7, 1)), rel=1e-4)
    # Whether the day lies at 20 decides between 20 and 3: log 3 with weight w(20), -log 3 with w(3), else 0.
    at_20, at_3 = weights[20], weights[3]
    variance = np.log(3) ** 2 * (at_20 + at_3 - (at_20 - at_3) ** 2)
    slots = [tf.constant([[slot, 24 * 6 + slot]], tf.int32) for slot in (20, 3)]
    assert vary_ratio(common, placed, *slots).numpy()[0] == pytest.approx([variance, variance], rel=1e-3)


def test_without_data_a_gain_is_as_uncertain_as_people_differ() -> None:
    layer = make_layer(rhythm=30.0, raw=NEVER_RAW, user=9.0)
    shape = 0.05 + np.exp(8 * (np.cos(2 * np.pi * np.arange(24) / 24) - 1))
    centres = np.full(24, 0.01)
    centres[[8, 20]] = 0.2, 0.58
    layer.set_rhythm(Rhythm(shape, centres, np.full(24, 1 / 24), np.ones(7), 1.0))
    unknown = layer.call(tf.constant(row({}, {}, week_s=8 * 3_600.0))).numpy()
    known = layer.call(tf.constant(row({20: 9}, dict.fromkeys(range(24), 12), week_s=8 * 3_600.0))).numpy()
    assert fact(unknown, "best_1") == fact(known, "best_1") == 20
    assert fact(unknown, "own") == pytest.approx(0, abs=1e-5)
    assert fact(known, "own") > 0.3
    widths = [np.log1p(fact(outputs, "gain_high_1")) - np.log1p(fact(outputs, "gain_low_1")) for outputs in (unknown, known)]
    assert widths[0] > 2 * widths[1] > 0
    assert fact(unknown, "gain_low_1") < 0 < fact(known, "gain_low_1")


def test_the_shape_of_a_day_is_found_although_hours_were_not_sent_to_alike() -> None:
    rows, best = draw_rows(1_500, seed=4)
    found = fit_rhythm(rows.acts, rows.sends, seed=0)
    hours = np.arange(24)
    true = 0.05 + 0.9 * np.exp(-0.5 * (np.minimum(hours, 24 - hours) / 2) ** 2)
    centre = int(found.shape.argmax())
    assert centre in (0, 1, 23)
    assert np.roll(found.shape, -centre) == pytest.approx(true, abs=0.08)
    assert found.shifts[0] > 0.9
    placed = place_users(as_tensors(found), tf.constant(rows.acts), tf.constant(rows.sends))
    guess = (placed.hours.numpy().sum(axis=2).argmax(axis=1) + centre) % 24
    apart = np.minimum(np.abs(guess - best), 24 - np.abs(guess - best))
    assert (apart <= 1).mean() > 0.95


def test_the_fit_beats_the_start_and_only_the_correction_finds_the_planted_hours(tmp_path) -> None:
    rows, best = draw_rows(1_500, seed=3)
    network, fit = fit_slots(SPEC, rows, seed=0)
    preference = network.predict(rows.transformed, verbose=0)[:, 1 : 1 + SLOTS]
    found = preference.reshape(-1, 7, 24).sum(axis=1).argmax(axis=1)
    apart = np.minimum(np.abs(found - best), 24 - np.abs(found - best))
    raw = rows.acts.reshape(-1, 7, 24).sum(axis=1).argmax(axis=1)
    raw_apart = np.minimum(np.abs(raw - best), 24 - np.abs(raw - best))
    assert (apart <= 1).mean() > 0.8 > 0.6 > (raw_apart <= 1).mean()
    assert fit.held_out_nll < np.log(SLOTS) - 0.5
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert (again.predict(rows.transformed, verbose=0) == network.predict(rows.transformed, verbose=0)).all()
    assert (predict_observed(again, rows.transformed[:5]) == predict_observed(network, rows.transformed[:5])).all()
    assert again.output_shape == (None, 1 + len(OUTPUT_NAMES))
    # The order of rows changes nothing but whom the fit draws first: here all are asked.
    shuffled = np.random.default_rng(0).permutation(len(rows))
    other, _ = fit_slots(SPEC, _reorder(rows, shuffled), seed=0)
    swapped = other.predict(rows.transformed[:20], verbose=0)[:, 1 : 1 + SLOTS]
    assert swapped == pytest.approx(preference[:20], rel=0.02, abs=1e-4)


def _reorder(rows: SlotRows, order: np.ndarray) -> SlotRows:
    parts = (rows.split[order], rows.transformed[order], rows.finished[order])
    return SlotRows(rows.entity_ids.take(pa.array(order)), *parts, rows.finished_names, rows.outcomes[order], rows.columns)
