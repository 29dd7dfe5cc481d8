"""Step: end the run as failed where the audit found a difference."""

from kfp.dsl import Artifact, Input

from components.image import component


@component
def skew_gate(model: str, audit: Input[Artifact]) -> str:
    """Say in one line that served rows equal the batch path, or fail with the first signal that differs.

    Args:
        model: name of the model.
        audit: JSON file of the audit step.
    Returns:
        the line.
    """
    from pathlib import Path

    from components.skew_audit import require_no_skew

    return require_no_skew(model, Path(audit.path))
