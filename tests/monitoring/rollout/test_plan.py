from __future__ import annotations

import pytest

from monitoring.errors import PlanError
from monitoring.rollout.plan import DEFAULT_PLAN, GateSpec, describe_plan, read_plan
from monitoring.verdicts import Outcome, Severity, Verdict, read_verdict


def test_what_a_plan_leaves_out_is_as_by_default():
    plan = read_plan({"stages": [{"percent": 10, "bake_s": 60, "least_users": 50}], "hold_s": 600})
    assert (plan.stages[0].percent, plan.gates, plan.hold_s) == (10, DEFAULT_PLAN.gates, 600)


def test_a_plan_comes_back_from_its_description():
    assert read_plan(describe_plan(DEFAULT_PLAN)) == DEFAULT_PLAN


def test_a_gate_says_what_its_failure_does():
    plan = read_plan({"gates": [{"kind": "score", "tolerance": 0.2, "severity": "page"}]})
    assert plan.gates == (GateSpec("score", 0.2, Severity.PAGE),)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stage": []}, "keys"),
        ({"stages": 5}, "a list of mappings"),
        ({"stages": [{"percent": 20, "bake_s": 1, "least_users": 1}, {"percent": 10, "bake_s": 1, "least_users": 1}]}, "rise"),
        ({"stages": [{"percent": 100, "bake_s": 1, "least_users": 1}]}, "below 100"),
        ({"stages": [{"percent": 5.5, "bake_s": 1, "least_users": 1}]}, "whole number"),
        ({"stages": [{"percent": 5}]}, "bake_s"),
        ({"stages": [{"percent": 5, "bake_s": 1, "least_users": 0}]}, "least_users >= 1"),
        ({"gates": [{"kind": "vibes", "tolerance": 1}]}, "vibes"),
        ({"gates": [{"kind": "score", "tolerance": 1}, {"kind": "score", "tolerance": 2}]}, "at most once"),
        ({"gates": [{"kind": "score", "tolerance": 0}]}, "tolerance > 0"),
        ({"gates": [{"kind": "score", "tolerance": "much"}]}, "a number"),
        ({"gates": [{"kind": "score", "tolerance": 0.1, "severity": "scream"}]}, "roll_back"),
        ({"gates": [{"kind": "score", "tolerance": 0.1, "proof": "hope"}]}, "bound, bake"),
        ({"false_rollback_rate": 0}, "between 0 and 1"),
        ({"hold_s": -1}, "positive seconds"),
        ([], "keys"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused_in_one_line(change, told):
    with pytest.raises(PlanError, match=told) as refusal:
        read_plan(change)
    assert "\n" not in str(refusal.value)


def test_a_verdict_comes_back_from_its_description():
    verdict = Verdict("errors", "churn", Outcome.FAIL, Severity.ROLL_BACK, {"users": 3, "what": None}, "bad", 9)
    assert read_verdict(verdict.describe()) == verdict
