"""Step: bless the model or refuse it, with the reason."""

from typing import NamedTuple

from kfp.dsl import Input, Metrics

from components.image import component


@component
def gate(model: str, evaluation: Input[Metrics]) -> NamedTuple("Verdict", [("decision", str), ("reason", str)]):
    """Compare the evaluation with what the model's spec demands.

    Args:
        model: name of a model spec.
        evaluation: JSON file of the evaluate step.
    Returns:
        ``blessed`` or ``not blessed``, and one line that says why.
    """
    from collections import namedtuple
    from pathlib import Path

    from models.gate import judge
    from models.specs import load_spec

    verdict = judge(load_spec(model), Path(evaluation.path))
    return namedtuple("Verdict", ["decision", "reason"])("blessed" if verdict.blessed else "not blessed", verdict.reason)
