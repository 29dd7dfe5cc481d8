"""Step: measure the network beside its baselines and the champion."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.image import component


@component
def evaluate(  # noqa: PLR0913 - a step's arguments are its wires
    model: str, workspace: str, control_database: str, rows: Input[Dataset], features: Input[Dataset], network: Input[Model],
    seed: int, evaluation: Output[Metrics],
) -> None:  # fmt: skip
    """Score the test split with the network, with every baseline and with the version in production.

    Args:
        model: name of a model spec.
        workspace: folder that holds the registered models.
        control_database: SQLAlchemy URL; empty for the SQLite file in the workspace.
        rows: Parquet of the rows step, for the champion's own graph.
        features: Parquet with label, split, transformed and finished features.
        network: folder of the train step.
        seed: seed of the bootstrap.
        evaluation: JSON file with metrics and their intervals; the headline figures also as KFP metrics.
    """
    from pathlib import Path

    from components.champion import score_champion
    from features.workspace import Workspace
    from models.evaluate import evaluate as measure
    from models.specs import load_spec

    champion = score_champion(Workspace(Path(workspace), control_database), model, Path(rows.path))
    paths = Path(features.path), Path(network.path), Path(evaluation.path)
    for name, value in measure(load_spec(model), *paths, seed=seed, champion=champion).items():
        evaluation.log_metric(name, value)
