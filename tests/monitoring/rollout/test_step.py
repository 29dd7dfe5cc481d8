from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.layout import US_PER_S
from monitoring.errors import RolloutError
from monitoring.rollout.plan import DEFAULT_PLAN, GateSpec, Plan, Stage
from monitoring.rollout.step import (
    FINAL,
    Hold,
    Page,
    Phase,
    Promote,
    RollBack,
    Rollout,
    Shift,
    Start,
    abort,
    advance,
    pause,
    promote,
    read_rollout,
    resume,
    roll_back,
    step,
)
from monitoring.verdicts import Outcome, Severity, Verdict

PLAN = Plan(
    stages=(Stage(5, 60, 10), Stage(25, 30, 10), Stage(50, 90, 10)), gates=(GateSpec("errors", 0.01),), hold_s=120, blind_s=20
)
NEW = Rollout(7, "churn", "churn", 3, 4)


def verdict_of(outcome: Outcome, severity: Severity = Severity.ROLL_BACK) -> Verdict:
    return Verdict("errors", "churn/canary", outcome, severity, {}, f"{severity} {outcome}", 0)


outcomes = st.builds(verdict_of, st.sampled_from(list(Outcome)), st.sampled_from(list(Severity)))
ticks = st.lists(st.tuples(st.integers(0, 200), st.lists(outcomes, max_size=4)), max_size=60)


def play(script):
    """Every (state before, verdicts, action, state after) of a rollout that gets these verdicts after these seconds."""
    state, now_us, course = NEW, 0, []
    for seconds, verdicts in script:
        now_us += seconds * US_PER_S
        action = step(state, verdicts, PLAN, now_us)
        after = advance(state, action, now_us)
        course.append((state, verdicts, action, after, now_us))
        state = after
    return course


PASS, FAIL, UNSURE = (verdict_of(outcome) for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))
BLIND = verdict_of(Outcome.FAIL, Severity.PAGE)


def test_a_good_canary_goes_through_every_stage_and_is_promoted_after_the_last_ones_bake():
    # Starts at 0 s; 5 % until 60 s, 25 % until 90 s, 50 % until 180 s.
    course = play([(0, []), *[(30, [PASS])] * 6])
    shown = [type(action).__name__ for _, _, action, _, _ in course]
    assert shown == ["Start", "Hold", "Shift", "Shift", "Hold", "Hold", "Promote"]
    assert [after.percent for *_, after, _ in course] == [5, 5, 25, 50, 50, 50, 100]


def test_harm_rolls_back_at_once_whatever_the_bake_time():
    *_, (_, _, action, after, _) = play([(0, []), (1, [PASS, FAIL])])
    assert action == RollBack("roll_back fail")
    assert (after.phase, after.percent) == (Phase.ROLLED_BACK, 0)


def test_missing_data_fails_as_a_page_and_takes_no_traffic_away():
    course = play([(0, []), (60, [PASS, BLIND]), (60, [PASS, BLIND]), (10, [PASS])])
    assert [type(action) for _, _, action, _, _ in course] == [Start, Page, Hold, Shift]
    assert course[2][3].percent == 5


def test_inconclusive_holds_and_pages_once_after_the_hold_time():
    # The bake ends at 60 s, the hold at 180 s.
    course = play([(0, []), (60, [UNSURE]), (100, [UNSURE]), (20, [UNSURE]), (500, [UNSURE]), (1, [PASS])])
    assert [type(action) for _, _, action, _, _ in course] == [Start, Hold, Hold, Page, Hold, Shift]


def test_no_verdicts_are_no_pass():
    *_, (_, _, action, _, _) = play([(0, []), (60, [])])
    assert action == Hold("inconclusive: no verdicts")


def test_a_verdict_that_is_only_information_stops_nothing():
    info = [verdict_of(Outcome.FAIL, Severity.INFO), verdict_of(Outcome.INCONCLUSIVE, Severity.INFO), PASS]
    *_, (_, _, action, _, _) = play([(0, []), (60, info)])
    assert action == Shift(25)


def test_a_paused_rollout_keeps_its_share_but_harm_still_rolls_it_back():
    state = pause(advance(NEW, Start(5), 0), "lunch")
    assert step(state, [PASS], PLAN, 10**12) == Hold("paused: lunch")
    assert isinstance(step(state, [FAIL], PLAN, 10**12), RollBack)


def test_resuming_bakes_the_stage_anew():
    state = resume(pause(advance(NEW, Start(5), 0), "lunch"), "back", 1_000 * US_PER_S)
    assert isinstance(step(state, [PASS], PLAN, 1_059 * US_PER_S), Hold)
    assert step(state, [PASS], PLAN, 1_060 * US_PER_S) == Shift(25)


@pytest.mark.parametrize("end", [abort, roll_back])
@pytest.mark.parametrize("again", [pause, promote, abort, roll_back])
def test_what_is_over_stays_over(end, again):
    over = end(NEW, "no")
    assert over.percent == 0
    with pytest.raises(RolloutError, match="next: look at"):
        again(over, "yes")


def test_a_state_comes_back_from_its_description():
    state = advance(NEW, Start(5), 123)
    assert read_rollout(state.describe()) == state


@given(ticks)
def test_no_share_is_raised_and_nothing_promoted_without_a_pass_of_everything(script):
    for before, verdicts, action, after, _ in play(script):
        if isinstance(action, Shift | Promote):
            blocking = [v for v in verdicts if v.severity is not Severity.INFO and v.outcome is not Outcome.PASS]
            assert verdicts
            assert not blocking
            assert after.percent > before.percent


@given(ticks)
def test_percents_only_rise_until_they_fall_to_nothing(script):
    percents = [after.percent for *_, after, _ in play(script)]
    allowed = [0, 5, 25, 50, 100]
    for low, high in pairwise(percents):
        assert high in (low, 0) or allowed.index(high) == allowed.index(low) + 1


@given(ticks)
def test_a_stage_never_ends_before_its_time(script):
    for before, _, action, _, now_us in play(script):
        if isinstance(action, Shift | Promote):
            assert now_us - before.stage_started_us >= PLAN.stages[before.stage].bake_s * US_PER_S
        if isinstance(action, Promote):
            assert before.stage == len(PLAN.stages) - 1


@given(ticks)
def test_the_end_is_final(script):
    course = play(script)
    for before, _, action, after, _ in course:
        if before.phase in FINAL:
            assert isinstance(action, Hold)
            assert after == before


@given(ticks)
def test_harm_always_rolls_back_what_has_started(script):
    for before, verdicts, action, _, _ in play(script):
        harmed = any(v.outcome is Outcome.FAIL and v.severity is Severity.ROLL_BACK for v in verdicts)
        if harmed and before.phase is Phase.RUNNING:
            assert isinstance(action, RollBack)


@given(ticks)
def test_a_stage_pages_at_most_once(script):
    paged = [before.stage for before, _, action, _, _ in play(script) if isinstance(action, Page)]
    assert len(paged) == len(set(paged))


@given(ticks)
def test_taking_an_action_twice_leads_to_the_same_place(script):
    for before, verdicts, action, after, now_us in play(script):
        assert advance(replace(before), step(before, verdicts, PLAN, now_us), now_us) == after
        assert action == step(before, verdicts, PLAN, now_us)


def test_the_default_plan_is_a_plan():
    assert DEFAULT_PLAN.stages[0].percent == 5
