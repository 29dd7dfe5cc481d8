"""Step: export graph and network as one SavedModel and register it as the next version."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.image import component


@component
def register(  # noqa: PLR0913 - a step's arguments are its wires
    model: str, workspace: str, control_database: str, run_id: str, created_at: str, seed: int, rows: Input[Dataset],
    graph: Input[Model], network: Input[Model], evaluation: Input[Metrics], exported: Output[Model], may_promote: bool = True,
) -> int:  # fmt: skip
    """Write a blessed version that can be served; it becomes champion if the gate promotes it.

    Args:
        model: name of a model spec.
        workspace: folder that holds the registered models.
        control_database: SQLAlchemy URL; empty for the SQLite file in the workspace.
        run_id: the run's name or id; a run registers one version, however often the step is tried.
        created_at: when the run was created, ISO 8601 with its zone.
        seed: what the run was seeded with.
        rows: Parquet of the rows step; its metadata names the data, and a sample of it is kept for drift.
        graph: folder of the fitted graph.
        network: folder of the train step.
        evaluation: JSON file of the evaluate step.
        exported: folder with ``saved_model/``, ``model.json`` and ``evaluation.json``, as registered.
        may_promote: whether the gate's word makes it champion where there is one; else it waits for a rollout.
    Returns:
        the version's number.
    """
    from pathlib import Path

    from components.registration import Products, Run, register_version
    from features.workspace import Workspace

    paths = (Path(rows.path), dict(rows.metadata), Path(graph.path), Path(network.path), Path(evaluation.path))
    target, run = Workspace(Path(workspace), control_database), Run(run_id, created_at, seed, may_promote)
    version = register_version(target, model, Products(*paths), Path(exported.path), run)
    exported.metadata.update({"version": version.version, "path": str(version.path)})
    return version.version
