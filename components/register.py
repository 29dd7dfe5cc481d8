"""Step: export graph and network as one SavedModel and register it as the next version."""

from kfp.dsl import Input, Metrics, Model, Output

from components.image import component


@component
def register(  # noqa: PLR0913 - a step's arguments are its wires
    model: str, workspace: str, run_id: str, started_at_us: int, graph: Input[Model], network: Input[Model],
    evaluation: Input[Metrics], exported: Output[Model],
) -> int:  # fmt: skip
    """Write a blessed version that can be served.

    Args:
        model: name of a model spec.
        workspace: folder that holds the registered models.
        run_id: name of the run record.
        started_at_us: when the run started (UTC microseconds).
        graph: folder of the fitted graph.
        network: folder of the train step.
        evaluation: JSON file of the evaluate step.
        exported: folder with ``saved_model/``, ``model.json`` and ``evaluation.json``, as registered.
    Returns:
        the version's number.
    """
    from pathlib import Path

    from components.registration import Products, register_version
    from features.workspace import Workspace

    products = Products(Path(graph.path), Path(network.path), Path(evaluation.path))
    target = Workspace(Path(workspace))
    version = register_version(target, model, products, Path(exported.path), run_id=run_id, created_at_us=started_at_us)
    exported.metadata.update({"version": version.version, "path": str(version.path)})
    return version.version
