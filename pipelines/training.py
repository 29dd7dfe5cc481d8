"""The training pipeline, one shape for every model: rows, graph, network, evaluation, gate, registration."""

from kfp import dsl

from components.evaluate import evaluate
from components.fit_graph import fit_graph
from components.gate import gate
from components.register import register
from components.rows import training_rows
from components.train import train
from pipelines.profile import DATA, LIGHT, TENSOR


@dsl.pipeline(name="training", description="Train a model as known at a time; register it if it is blessed.")
def training(model: str, workspace: str, known_at_us: int, started_at_us: int, seed: int = 0, run_id: str = "") -> None:
    """Train one model.

    Args:
        model: name of a model spec, such as ``churn``.
        workspace: folder with log, profiles and models, as the steps see it.
        known_at_us: nothing that became known later enters training (UTC microseconds).
        started_at_us: when the run starts (UTC microseconds); the registered version keeps it.
        seed: seed of initial weights, shuffling and bootstrap.
        run_id: name of the run record, kept with the registered version.
    """
    rows = training_rows(model=model, workspace=workspace, known_at_us=known_at_us)
    DATA.apply(rows)
    graph = fit_graph(model=model, rows=rows.outputs["rows"])
    TENSOR.apply(graph)
    network = train(model=model, features=graph.outputs["features"], seed=seed)
    TENSOR.apply(network)
    evaluation = evaluate(
        model=model, features=graph.outputs["features"], network=network.outputs["network"], seed=seed,
    )  # fmt: skip
    TENSOR.apply(evaluation)
    decision = gate(model=model, evaluation=evaluation.outputs["evaluation"])
    LIGHT.apply(decision)
    # KFP's local runner reads a condition on a step's one unnamed output; a named one it takes for false.
    with dsl.If(decision.outputs["Output"] == "blessed", name="blessed"):
        registration = register(
            model=model, workspace=workspace, run_id=run_id, started_at_us=started_at_us, graph=graph.outputs["graph"],
            network=network.outputs["network"], evaluation=evaluation.outputs["evaluation"],
        )  # fmt: skip
        TENSOR.apply(registration)
