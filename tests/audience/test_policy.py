"""The policy of audiences on a handful of users, decided by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.audience_policy import (
    BELOW_THRESHOLD,
    FREQUENCY_CAP,
    NO_CONSENT,
    OVER_BUDGET,
    OVER_REACH,
    OVER_SIZE,
    SELECTED,
    SUPPRESSED,
    UNPROFITABLE,
    AudiencePolicy,
    CampaignPolicy,
    judge_users,
    limit_audience,
    read_policy,
    standing_of,
)
from models.errors import SpecError

PLAIN = CampaignPolicy("a", {}, threshold=0.2)
IDS = pa.array(["u1", "u2", "u3", "u4", "u5"])
SCORES = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32)


def judge(
    policy: AudiencePolicy, scores: list[list[float]], received: list[int] | None = None, permitted=None
) -> list[list[int]]:
    ids = [f"u{number}" for number in range(1, len(scores) + 1)]
    given = None if received is None else np.array(received)
    table = np.array(scores, np.float32)
    return judge_users(table, policy, standing_of(ids, policy, given, permitted)).tolist()


def test_a_score_at_the_threshold_is_in_and_one_below_is_out() -> None:
    # 0.25 is a float32 to the bit.
    policy = AudiencePolicy((replace(PLAIN, threshold=0.25),))
    assert judge(policy, [[0.25], [np.nextafter(np.float32(0.25), np.float32(0))]]) == [[SELECTED], [BELOW_THRESHOLD]]


def test_a_member_must_bring_what_he_costs() -> None:
    # 5 cents each, 20 cents a take-up: from 0.25 on. The threshold of 0.2 alone would let 0.24 in.
    policy = AudiencePolicy((replace(PLAIN, cost_cents=5, value_cents=20),))
    assert judge(policy, [[0.25], [0.24], [0.19]]) == [[SELECTED], [UNPROFITABLE], [BELOW_THRESHOLD]]
    worthless = AudiencePolicy((replace(PLAIN, cost_cents=5, value_cents=0),))
    assert judge(worthless, [[1.0]]) == [[UNPROFITABLE]]


def test_suppression_holds_for_one_campaign_or_for_all() -> None:
    policy = AudiencePolicy((PLAIN, replace(PLAIN, name="b", suppressed=frozenset({"u1"}))), suppressed=frozenset({"u2"}))
    assert judge(policy, [[0.9, 0.9], [0.9, 0.9], [0.9, 0.1]]) == [
        [SELECTED, SUPPRESSED], [SUPPRESSED, SUPPRESSED], [SELECTED, BELOW_THRESHOLD],
    ]  # fmt: skip


def test_whoever_has_not_permitted_the_channel_is_out_and_silence_permits_nothing() -> None:
    policy = AudiencePolicy(
        (replace(PLAIN, channel="email"), replace(PLAIN, name="b", channel="push")), consent="permissions.consent"
    )
    permitted = {"u1": "email push", "u2": "push"}
    assert judge(policy, [[0.9, 0.9]] * 3, permitted=permitted) == [
        [SELECTED, SELECTED], [NO_CONSENT, SELECTED], [NO_CONSENT, NO_CONSENT],
    ]  # fmt: skip


def test_a_user_gets_the_best_campaigns_that_her_allowance_leaves() -> None:
    # Three at most; u1 has got one and u2 four. u1 keeps her best two of three, and what she may not get counts for nothing.
    campaigns = tuple(replace(PLAIN, name=name) for name in "abcd")
    policy = AudiencePolicy(campaigns, most_campaigns=3, counted_by="received")
    assert judge(policy, [[0.3, 0.9, 0.5, 0.1], [0.9, 0.1, 0.1, 0.1]], received=[1, 4]) == [
        [FREQUENCY_CAP, SELECTED, SELECTED, BELOW_THRESHOLD],
        [FREQUENCY_CAP, BELOW_THRESHOLD, BELOW_THRESHOLD, BELOW_THRESHOLD],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # Of u1 0.9 and u2, u3, u4 0.5, two have room: u1, and of the equal ones the lowest id.
        ({"size": 2}, [SELECTED, SELECTED, OVER_SIZE, OVER_SIZE, BELOW_THRESHOLD]),
        ({"size": 0}, [OVER_SIZE] * 4 + [BELOW_THRESHOLD]),
        # 0.3 of 10 users are three.
        ({"reach": 0.3}, [SELECTED, SELECTED, SELECTED, OVER_REACH, BELOW_THRESHOLD]),
        # 25 cents at 10 each are two.
        ({"budget_cents": 25, "cost_cents": 10}, [SELECTED, SELECTED, OVER_BUDGET, OVER_BUDGET, BELOW_THRESHOLD]),
        # The tightest limit gives the reason.
        ({"size": 3, "reach": 0.1}, [SELECTED, OVER_REACH, OVER_REACH, OVER_REACH, BELOW_THRESHOLD]),
        ({}, [SELECTED] * 4 + [BELOW_THRESHOLD]),
    ],
)
def test_limits_keep_the_highest_scores(limit: dict[str, float], expected: list[int]) -> None:
    codes = np.array([SELECTED] * 4 + [BELOW_THRESHOLD], np.int8)
    assert limit_audience(SCORES, codes, IDS, replace(PLAIN, **limit), 10).tolist() == expected


def test_a_place_that_becomes_free_goes_to_whoever_was_left_out_and_to_nobody_who_is_barred() -> None:
    codes = np.array([SUPPRESSED, OVER_SIZE, OVER_SIZE, SELECTED, FREQUENCY_CAP], np.int8)
    decided = limit_audience(SCORES, codes, IDS, replace(PLAIN, size=2), 10)
    assert decided.tolist() == [SUPPRESSED, SELECTED, SELECTED, OVER_SIZE, FREQUENCY_CAP]


@given(hnp.arrays(np.float32, st.integers(1, 30), elements=st.sampled_from([0.3, 0.5, 0.7])), st.integers(0, 12), st.randoms())
def test_the_second_step_does_not_hang_on_the_order_of_users_or_on_being_repeated(scores, size, random) -> None:
    ids = [f"u{number}" for number in range(len(scores))]
    campaign, codes = replace(PLAIN, size=size), np.zeros(len(scores), np.int8)
    first = limit_audience(scores, codes, pa.array(ids), campaign, 100)
    order = random.sample(range(len(ids)), len(ids))
    again = limit_audience(scores[order], first[order], pa.array([ids[row] for row in order]), campaign, 100)
    assert again.tolist() == first[order].tolist()
    assert (first == SELECTED).sum() == min(size, len(scores))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"campaigns": []}, "list of campaigns"),
        ({"campaigns": [{"name": "a", "content": {}, "threshold": 0.1}] * 2}, "2, 1 of them different"),
        ({"campaigns": [{"name": "a", "content": {}}]}, "no threshold"),
        ({"campaigns": [{"name": "a", "content": {}, "threshold": 20}]}, "threshold of campaign"),
        ({"campaigns": [{"name": "a", "content": {}, "threshold": 0.2, "sise": 3}]}, "sise"),
        ({"campaigns": [{"name": "a", "content": {}, "threshold": 0.2}], "frequency": 3}, "frequency"),
    ],
)
def test_a_policy_with_a_mistake_is_refused_by_its_name(content, named) -> None:
    with pytest.raises(SpecError, match=named):
        read_policy(content)
