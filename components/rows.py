"""Step: training rows as known at a time, from the event log and the profiles."""

from kfp.dsl import Dataset, Output

from components.image import component


@component
def training_rows(model: str, workspace: str, known_at_us: int, rows: Output[Dataset]) -> None:
    """Write the model's training rows, one Parquet file of ``features.rows.training_schema``.

    Args:
        model: name of a model spec.
        workspace: folder that holds the event log and the profiles.
        known_at_us: nothing that became known after this instant may enter (UTC microseconds).
        rows: the file; its metadata holds counts and the data versions that were read.
    """
    from pathlib import Path

    from components.training_rows import build_training_rows
    from features.workspace import Workspace

    rows.metadata.update(build_training_rows(Workspace(Path(workspace)), model, known_at_us, Path(rows.path)))
