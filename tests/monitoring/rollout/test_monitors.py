"""What outside monitors may do to a rollout: who takes the traffic, who stops the promotion, and who changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from features.workspace import Workspace
from monitoring.errors import PlanError
from monitoring.rollout.monitors import Concern, concern_of, read_monitors, weigh_monitors
from monitoring.rollout.plan import DEFAULT_PLAN, describe_plan, read_plan
from monitoring.rollout.records import Facts, Standing, Step
from monitoring.rollout.step import Hold, Page, Phase, Promote, RollBack, Rollout, step
from monitoring.rollout.traffic import Routing, Target
from monitoring.verdict_log import record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict

S = 1_000_000
BEGAN_US = 1_700_000_000 * S
NOW_US = BEGAN_US + 10_000 * S
CANARY, STABLE = "churn/canary-7", "churn/canary-3"
CONCERN = Concern(CANARY, STABLE, "churn", "model:churn", since_us=BEGAN_US)
PLAN = read_plan({"stages": [{"percent": 10, "bake_s": 60, "least_users": 50}]})
RUNNING = Rollout(7, "churn", "churn", 1, 2, Phase.RUNNING, 0, BEGAN_US, 10)
GATES = (Verdict("errors", "churn/canary", Outcome.PASS, Severity.ROLL_BACK, {}, "no harm", NOW_US),)


def said(monitor: str, subject: str, outcome: Outcome, severity: Severity = Severity.PAGE) -> Verdict:
    return Verdict(monitor, subject, outcome, severity, {}, "1 of 4 features drifted: hours (effect 0.90)", NOW_US)


def decide(*verdicts: Verdict, require: tuple[str, ...] = ()):
    return step(RUNNING, (*GATES, *weigh_monitors(replace(CONCERN, require=require), verdicts, NOW_US)), PLAN, NOW_US)


def test_monitors_that_have_never_spoken_change_nothing():
    assert isinstance(decide(), Promote)


def test_a_monitor_that_blames_the_canary_takes_its_traffic_and_the_reason_names_the_feature():
    action = decide(said("drift.stable.features", CANARY, Outcome.FAIL, Severity.ROLL_BACK))
    assert action == RollBack("drift.stable.features of churn/canary-7: 1 of 4 features drifted: hours (effect 0.90)")


@pytest.mark.parametrize("subject", [CANARY, STABLE, "churn"])
def test_what_concerns_both_calls_somebody_and_stops_the_promotion_but_takes_no_traffic(subject):
    # Whatever severity a monitor asks for, what is not about the canary cannot take its traffic.
    severity = Severity.PAGE if subject == CANARY else Severity.ROLL_BACK
    action = decide(said("drift.training.features", subject, Outcome.FAIL, severity))
    assert isinstance(action, Page)
    assert "hours" in action.reason


def test_what_is_wrong_with_the_model_as_a_whole_stops_only_plans_that_ask_for_it():
    failed = said("labels", "model:churn", Outcome.FAIL)
    assert isinstance(decide(failed), Promote)
    assert isinstance(decide(failed, require=("labels",)), Page)


def test_a_canary_that_was_trained_on_what_stable_drifted_to_is_the_cure():
    drifted = [said(f"drift.{kind}.features", STABLE, Outcome.FAIL) for kind in ("training", "weeks")]
    assert isinstance(decide(*drifted), Page)
    assert isinstance(decide(*drifted, said("drift.training.features", CANARY, Outcome.FAIL)), Page)
    assert isinstance(decide(*drifted, said("drift.training.score", CANARY, Outcome.PASS)), Page)
    assert isinstance(decide(*drifted, said("drift.training.features", CANARY, Outcome.PASS)), Promote)


def test_too_little_data_is_shown_and_waited_for_only_where_it_is_required():
    few = said("drift.stable.quality", CANARY, Outcome.INCONCLUSIVE, Severity.ROLL_BACK)
    assert isinstance(decide(few), Promote)
    assert isinstance(decide(few, require=("drift.stable.quality",)), Page)  # the hold of 1,800 s is over


def test_a_required_monitor_must_have_passed_the_canary_in_this_stage():
    require = ("drift.stable.features",)
    passed = said("drift.stable.features", CANARY, Outcome.PASS, Severity.ROLL_BACK)
    assert isinstance(decide(passed, require=require), Promote)
    for missing in ((), (replace(passed, subject=STABLE),), (replace(passed, at_us=BEGAN_US - 1),)):
        action = decide(*missing, require=require)
        assert isinstance(action, Page)
        assert "required drift.stable.features has not spoken of churn/canary-7" in action.reason
    early = weigh_monitors(replace(CONCERN, require=require), (), BEGAN_US)
    assert isinstance(step(RUNNING, (*GATES, *early), PLAN, BEGAN_US + 61 * S), Hold)


def test_what_is_required_of_a_service_or_a_model_as_a_whole_need_not_name_the_canary():
    assert isinstance(decide(said("freshness", "churn", Outcome.PASS), require=("freshness",)), Promote)
    assert isinstance(decide(said("labels", "model:churn", Outcome.PASS, Severity.INFO), require=("labels",)), Promote)


def test_a_monitor_that_went_blind_holds_whether_it_was_required_or_not(tmp_path: Path):
    workspace = Workspace(tmp_path)
    made = rolled_out(("drift.stable.features",))
    routing = Routing("churn", "canary-3", Target("churn", 1), None, ready=True, lock="1")
    assert concern_of(made, routing) == replace(CONCERN, require=("drift.stable.features",))

    record_verdicts(workspace, [said("drift.stable.features", CANARY, Outcome.PASS)], valid_for_s=300, now_us=NOW_US)

    def decide_at(now_us: int, standing: Standing):
        verdicts = (*GATES, *read_monitors(workspace, standing, routing, now_us))
        return step(RUNNING, verdicts, PLAN, NOW_US)

    for standing in (made, rolled_out(())):
        assert isinstance(decide_at(NOW_US + 300 * S, standing), Promote)
        action = decide_at(NOW_US + 301 * S, standing)
        assert isinstance(action, Page)
        assert action.reason.startswith("inconclusive: drift.stable.features of churn/canary-7: blind: nothing heard of")


def rolled_out(require: tuple[str, ...]) -> Standing:
    """Rollout 7 of churn, its first stage applied at ``BEGAN_US``."""
    plan = describe_plan(replace(PLAN, require=require))
    facts = Facts(7, "churn", "churn", 1, 2, plan, "ann", "better", BEGAN_US)
    applied = Step(7, 2, "start", "running", 10, RUNNING.describe(), [], "controller", "started", 1, BEGAN_US, BEGAN_US)
    return Standing(facts, applied)


def test_a_plan_names_what_it_requires_and_refuses_what_is_no_name():
    plan = read_plan({"require": ["drift.stable.features"]})
    assert plan == replace(DEFAULT_PLAN, require=("drift.stable.features",)) == read_plan(describe_plan(plan))
    with pytest.raises(PlanError, match="a list of monitors' names"):
        read_plan({"require": "drift.stable.features"})
