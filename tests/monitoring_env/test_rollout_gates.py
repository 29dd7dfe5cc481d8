"""The gates of rollouts run in this environment too: numpy 1, and neither SQLAlchemy nor the benchmarks' streams."""

from __future__ import annotations

import numpy as np

from monitoring.rollout.evidence import begin, fold
from monitoring.rollout.evidence_json import read_evidence, write_evidence
from monitoring.rollout.gates import judge
from monitoring.rollout.observations import Observations
from monitoring.rollout.plan import DEFAULT_PLAN
from monitoring.verdicts import Outcome, Severity


def test_a_crashing_canary_is_called_and_evidence_survives_its_text():
    rng = np.random.default_rng(0)
    arm = (rng.random(2_000) < 0.05).astype(np.int8)
    failed = (arm == 1) & (rng.random(2_000) < 0.3)
    seen = Observations(
        at_us=1,
        arm=arm,
        entity=np.arange(2_000) * 7,
        failed=failed,
        latency_s=rng.lognormal(-4, 0.5, 2_000),
        degraded=np.zeros(2_000, np.bool_),
        score=np.where(failed, np.nan, rng.beta(2, 20, 2_000)).astype(np.float32),
        slice_code=np.zeros(2_000, np.int16),
        feature_names=("a", "b"),
        features=rng.normal(size=(500, 2)).astype(np.float32),
        feature_arm=arm[:500],
        feature_entity=np.arange(500),
    )
    evidence = fold(begin(DEFAULT_PLAN), seen)
    assert write_evidence(read_evidence(write_evidence(evidence))) == write_evidence(evidence)
    failing = [verdict.monitor for verdict in judge(evidence, DEFAULT_PLAN, 1) if verdict.outcome is Outcome.FAIL]
    assert failing == ["errors"]
    assert judge(evidence, DEFAULT_PLAN, 1)[1].severity is Severity.ROLL_BACK
