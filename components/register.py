"""Step: export graph and network as one SavedModel and register it as the next version."""

from kfp.dsl import Input, Metrics, Model

from components.image import component


@component
def register(
    model: str, workspace: str, run_id: str, graph: Input[Model], network: Input[Model], evaluation: Input[Metrics]
) -> int:
    """Write a blessed version that can be served.

    Args:
        model: name of a model spec.
        workspace: folder that holds the registered models.
        run_id: name of the run record.
        graph: folder of the fitted graph.
        network: folder with ``network.keras``.
        evaluation: JSON file of the evaluate step.
    Returns:
        the version's number.
    """
    from pathlib import Path

    from components.registration import register_version
    from features.workspace import Workspace

    paths = (Path(graph.path), Path(network.path), Path(evaluation.path))
    return register_version(Workspace(Path(workspace)), model, run_id, *paths)
