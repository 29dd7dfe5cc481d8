"""Step: bless the model or refuse it, with the reasons."""

from kfp.dsl import Input, Markdown, Metrics, Output

from components.image import component


@component
def gate(model: str, evaluation: Input[Metrics], report: Output[Markdown]) -> str:
    """Compare the evaluation with what the model's spec demands.

    Args:
        model: name of a model spec.
        evaluation: JSON file of the evaluate step.
        report: the decision and its reasons as text; the metadata holds them in one line, and whether it is promoted.
    Returns:
        ``blessed`` or ``not blessed``.
    """
    from pathlib import Path

    from models.gate import judge
    from models.specs import load_spec

    verdict = judge(load_spec(model), Path(evaluation.path))
    decision = "blessed" if verdict.blessed else "not blessed"
    reasons = "".join(f"- {reason}\n" for reason in verdict.reasons)
    Path(report.path).write_text(f"# {model}: {decision}\n\n{reasons}", encoding="utf-8")
    report.metadata.update({"reason": verdict.reason, "promoted": verdict.promoted})
    return decision
