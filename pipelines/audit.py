"""The audit pipeline: are the rows that a model has served what the batch path makes of the same events?"""

from kfp import dsl

from components.audit import skew_audit
from components.audit_gate import skew_gate
from pipelines.profile import DATA, LIGHT


@dsl.pipeline(name="audit", description="Compare a model's served rows with the batch path; fail where they differ.")
def audit(
    model: str, workspace: str, since_us: int = 0, until_us: int = 0, rate: float = 1.0, control_database: str = ""
) -> None:  # fmt: skip
    """Audit one model. The run's start comes from KFP, so that a schedule need not know it.

    Args:
        model: name of a registered model, such as ``churn``.
        workspace: folder with log, profiles, models and predictions, as the steps see it.
        since_us: rows answered from here on (UTC microseconds); 0 for all.
        until_us: rows answered before; 0 for all.
        rate: share of entities that are audited.
        control_database: SQLAlchemy URL without a password; empty for the SQLite file in the workspace.
    """
    found = skew_audit(
        model=model, workspace=workspace, control_database=control_database, since_us=since_us, until_us=until_us,
        rate=rate, measured_at=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
    )  # fmt: skip
    DATA.apply(found)
    LIGHT.apply(skew_gate(model=model, audit=found.outputs["audit"]))
