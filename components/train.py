"""Step: train the network on finished features."""

from kfp.dsl import Dataset, Input, Model, Output

from components.image import component


@component
def train(model: str, features: Input[Dataset], seed: int, network: Output[Model]) -> None:
    """Fit the model's network on matured rows of the training split.

    Args:
        model: name of a model spec.
        features: Parquet with label, split and transformed features.
        seed: seed of initial weights and shuffling.
        network: folder with ``network.keras``, to be served, and ``evaluated.keras``, to be judged.
    """
    from pathlib import Path

    from models.specs import load_spec
    from models.train import train as fit

    summary = fit(load_spec(model), Path(features.path), Path(network.path), seed=seed)
    network.metadata.update({"evaluated_rows": summary.evaluated.rows, "served_rows": summary.served.rows})
