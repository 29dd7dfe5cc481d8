"""Step: analyse the training rows and freeze the feature graph."""

from kfp.dsl import Dataset, Input, Model, Output

from components.image import component


@component
def fit_graph(model: str, rows: Input[Dataset], graph: Output[Model], features: Output[Dataset]) -> None:
    """Fit the graph of the model's view on the rows of the training split, and finish every row with it.

    Args:
        model: name of a model spec.
        rows: Parquet of ``features.rows.training_schema``.
        graph: folder with the fitted graph as a SavedModel and ``graph.json``.
        features: Parquet with one row a training row: label, split, transformed and finished features.
    """
    from pathlib import Path

    from components.declarations import declarations_of
    from transforms.fit import fit_graph as fit

    catalog, view = declarations_of(model)
    fit(Path(rows.path), catalog, view, Path(graph.path))
    (Path(graph.path) / "features.parquet").replace(features.path)
