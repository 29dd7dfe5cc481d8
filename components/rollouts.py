"""What a rollout needs of the model registry: which version is champion, making another one it, and what may be rolled out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from features.errors import explain
from features.workspace import Workspace
from models.aliases import Change, champion_of, list_aliases, promote
from models.errors import VersionError
from models.registry import CANDIDATE
from models.spec_checks import require_probability
from models.specs import load_spec
from models.versions import ModelVersion, load
from monitoring.rollout.plan import DEFAULT_PLAN, Plan

WHO = "rollout"
"""Who gives an alias at the end of a rollout; the reason names the person or the gate."""


BY_LABEL: Final = frozenset({"labels", "estimate"})
"""Gates that take a score for the probability of the label."""


@dataclass(frozen=True)
class RegistryAliases:
    """The registry's champions, as the controller of rollouts asks for them."""

    workspace: Workspace

    def champion(self, model: str) -> int | None:
        """The champion's version; None where the model has none."""
        return champion_of(self.workspace, model)

    def promote(self, model: str, version: int, why: str, at_us: int) -> None:
        """Make a version champion, whoever is it now.

        Raises:
            VersionError: it is not blessed, is champion already, or its files are gone.
            StoreUnavailable: the control database does not answer.
        """
        change = Change(WHO, why, at_us)
        promote(self.workspace, model, version, change, expected=champion_of(self.workspace, model))


def choose_canary(workspace: Workspace, model: str, version: int | None) -> ModelVersion:
    """The version to be rolled out: a blessed one with its files; the candidate where none is named.

    Raises:
        VersionError: there is no such version, no candidate, or it is not fit to be served.
    """
    if version is None:
        version = next((entry.to_version for entry in list_aliases(workspace, model) if entry.alias == CANDIDATE), None)
    if version is None:
        raise VersionError(
            explain("model has no candidate", which=model, expected="a blessed version", got="none",
                    next_step=f"train it: plumb pipelines run {model}, or name a version")
        )  # fmt: skip
    return load(workspace, model, version)


def suit_plan(model: str, plan: Plan) -> Plan:
    """The plan, if its gates can judge the model; the default one without those that cannot.

    Raises:
        SpecError: the model is unknown, or a plan of one's own judges by labels what no label can judge.
    """
    spec = load_spec(model)
    if spec.slots is None or not BY_LABEL.intersection(gate.kind for gate in plan.gates):
        return plan
    if plan != DEFAULT_PLAN:
        require_probability(spec, "a rollout's gate")
    return replace(plan, gates=tuple(gate for gate in plan.gates if gate.kind not in BY_LABEL))
