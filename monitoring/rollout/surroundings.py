"""What a controller works with: the plane, the collector, the registry's aliases, and what else has a say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from features.workspace import Workspace
from monitoring.rollout.collector import Collector
from monitoring.rollout.leader import Claim
from monitoring.rollout.records import Standing
from monitoring.rollout.traffic import Routing, Traffic
from monitoring.verdicts import Verdict

Monitors = Callable[[Standing, Routing, int], Sequence[Verdict]]
"""What monitors beside the gates say of a rollout now (UTC microseconds): weighed like the gates' own verdicts. It raises
``StoreUnavailable`` where the control database does not answer, any other ``PlumblineError`` where it cannot say."""


class Aliases(Protocol):
    """Which version of a model is champion: the registry's business, which another room keeps."""

    def champion(self, model: str) -> int | None:
        """Its version; None where there is none."""

    def promote(self, model: str, version: int, why: str, at_us: int) -> None:
        """Make a version champion.

        Raises:
            PermanentError: it may not be.
        """


@dataclass(frozen=True)
class Surroundings:
    """What a controller works with.

    Attributes:
        tell: called with one line whenever something happens that on-call should see.
        ready_within_s: how long a canary may take until its model answers.
        feature_names: of a model's version, in the order of its logged whole rows; without it features are not judged.
        monitors: what others say of a rollout; without it the gates alone judge.
    """

    workspace: Workspace
    traffic: Traffic
    collector: Collector
    aliases: Aliases
    claim: Claim
    tell: Callable[[str], None]
    ready_within_s: float = 180.0
    feature_names: Callable[[str, int], tuple[str, ...]] | None = None
    monitors: Monitors | None = None
