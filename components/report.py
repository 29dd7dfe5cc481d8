"""Step: the run's report, whether it is blessed or not."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components.image import component


@component
def report(  # noqa: PLR0913 - a step's arguments are its wires
    model: str, run_id: str, created_at: str, seed: int, rows: Input[Dataset], graph: Input[Model], network: Input[Model],
    evaluation: Input[Metrics], page: Output[HTML],
) -> None:  # fmt: skip
    """Draw everything that people ask of a run into one HTML file that needs nothing else.

    Args:
        model: name of a model spec.
        run_id: the run's name or id.
        created_at: when the run was created, ISO 8601 with its zone.
        seed: what the run was seeded with.
        rows: Parquet of the rows step; its metadata names the data.
        graph: folder of the fitted graph.
        network: folder of the train step.
        evaluation: JSON file of the evaluate step.
        page: the HTML file.
    """
    from pathlib import Path

    from components.reporting import RunFacts, write_report

    facts = RunFacts(run_id, created_at, seed, dict(rows.metadata), Path(graph.path), Path(network.path))
    write_report(model, Path(evaluation.path), facts, Path(page.path))
