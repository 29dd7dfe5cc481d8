"""Step: bless the model or refuse it, with the reason."""

from kfp.dsl import Input, Markdown, Metrics, Output

from components.image import component


@component
def gate(model: str, evaluation: Input[Metrics], report: Output[Markdown]) -> str:
    """Compare the evaluation with what the model's spec demands.

    Args:
        model: name of a model spec.
        evaluation: JSON file of the evaluate step.
        report: the decision and its reason as text; the metadata holds the reason alone.
    Returns:
        ``blessed`` or ``not blessed``.
    """
    from pathlib import Path

    from models.gate import judge
    from models.specs import load_spec

    verdict = judge(load_spec(model), Path(evaluation.path))
    decision = "blessed" if verdict.blessed else "not blessed"
    Path(report.path).write_text(f"# {model}: {decision}\n\n{verdict.reason}\n", encoding="utf-8")
    report.metadata["reason"] = verdict.reason
    return decision
