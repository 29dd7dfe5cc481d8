"""The training pipeline, one shape for every model: rows, graph, network, evaluation, gate, report, registration."""

from kfp import dsl

from components.evaluate import evaluate
from components.fit_graph import fit_graph
from components.gate import gate
from components.register import register
from components.report import report
from components.rows import training_rows
from components.train import train
from pipelines.profile import DATA, LIGHT, TENSOR


@dsl.pipeline(name="training", description="Train a model as known at a time; register it if it is blessed.")
def training(
    model: str, workspace: str, known_at_us: int = 0, seed: int = 0, control_database: str = "", may_promote: bool = True
) -> None:  # fmt: skip
    """Train one model. The run's name and start come from KFP, so that a schedule needs to know neither.

    Args:
        model: name of a model spec, such as ``churn``.
        workspace: folder with log, profiles and models, as the steps see it.
        known_at_us: nothing that became known later enters training (UTC microseconds); 0 for the end of the log.
        seed: seed of initial weights, shuffling and bootstrap.
        control_database: SQLAlchemy URL without a password; empty for the SQLite file in the workspace.
        may_promote: whether a version that beats the champion becomes it; else it waits for a rollout.
    """
    rows = training_rows(model=model, workspace=workspace, known_at_us=known_at_us)
    DATA.apply(rows)
    graph = fit_graph(model=model, rows=rows.outputs["rows"])
    TENSOR.apply(graph)
    network = train(model=model, features=graph.outputs["features"], seed=seed)
    TENSOR.apply(network)
    evaluation = evaluate(
        model=model, workspace=workspace, control_database=control_database, rows=rows.outputs["rows"],
        features=graph.outputs["features"], network=network.outputs["network"], seed=seed,
    )  # fmt: skip
    TENSOR.apply(evaluation)
    decision = gate(model=model, evaluation=evaluation.outputs["evaluation"])
    LIGHT.apply(decision)
    page = report(
        model=model, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, created_at=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        seed=seed, rows=rows.outputs["rows"], graph=graph.outputs["graph"], network=network.outputs["network"],
        evaluation=evaluation.outputs["evaluation"],
    ).after(decision)  # fmt: skip
    LIGHT.apply(page)
    # KFP's local runner reads a condition on a step's one unnamed output; a named one it takes for false.
    with dsl.If(decision.outputs["Output"] == "blessed", name="blessed"):
        registration = register(
            model=model, workspace=workspace, control_database=control_database, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            created_at=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER, seed=seed, rows=rows.outputs["rows"],
            graph=graph.outputs["graph"], network=network.outputs["network"], evaluation=evaluation.outputs["evaluation"],
            may_promote=may_promote,
        ).after(page)  # fmt: skip
        TENSOR.apply(registration)
