"""Step: audit what a model has served against the batch path."""

from kfp.dsl import Artifact, Dataset, Output

from components.image import component


@component
def skew_audit(  # noqa: PLR0913 - a step's arguments are its wires
    model: str, workspace: str, control_database: str, since_us: int, until_us: int, rate: float, measured_at: str,
    differences: Output[Dataset], audit: Output[Artifact],
) -> int:  # fmt: skip
    """Make a model's served rows again and compare; what differs is a result, not a failure of this step.

    Args:
        model: name of a registered model.
        workspace: folder with log, profiles, models and predictions.
        control_database: SQLAlchemy URL; empty for the SQLite file in the workspace.
        since_us: rows answered from here on (UTC microseconds); 0 for all.
        until_us: rows answered before; 0 for all.
        rate: share of entities that are audited.
        measured_at: when the run was created, ISO 8601 with its zone.
        differences: Parquet of ``features.rows.SKEW``, for monitors.
        audit: JSON file with the counts and the first differing signal, which the metadata holds as text too.
    Returns:
        rows that differ from the batch path, each kind of comparison counted by itself.
    """
    from pathlib import Path

    from components.skew_audit import write_audit

    selection = {"since_us": since_us, "until_us": until_us, "rate": rate, "measured_at": measured_at}
    found = write_audit(Path(workspace), control_database, model, selection, Path(differences.path), Path(audit.path))
    audit.metadata.update(found)
    return int(found["mismatches"])
