"""Step: measure the network beside its baselines."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.image import component


@component
def evaluate(model: str, features: Input[Dataset], network: Input[Model], seed: int, evaluation: Output[Metrics]) -> None:
    """Score the test split with the network and with every baseline.

    Args:
        model: name of a model spec.
        features: Parquet with label, split, transformed and finished features.
        network: folder of the train step.
        seed: seed of the bootstrap.
        evaluation: JSON file with metrics and their intervals; the headline figures also as KFP metrics.
    """
    from pathlib import Path

    from models.evaluate import evaluate as measure
    from models.specs import load_spec

    report = measure(load_spec(model), Path(features.path), Path(network.path), Path(evaluation.path), seed=seed)
    for name, value in report.items():
        evaluation.log_metric(name, value)
