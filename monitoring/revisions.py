"""Which revision of a service is stable, now and before: its name does not tell, since a promoted canary keeps its own.

The local plane keeps each service's InferenceService as a file, and that says what is stable and what is a canary. Elsewhere,
on a cluster whose events name revisions by a label that stays, the one called ``stable`` is. Which canaries were promoted
before, rollouts tell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import TrafficError
from monitoring.rollout.names import name_canary, name_restored
from monitoring.rollout.records import list_rollouts
from monitoring.rollout.step import Phase

STABLE: Final = "stable"
"""The stable revision's name where nothing gives it another."""


@dataclass(frozen=True)
class Revisions:
    """A service's revisions by their part.

    Attributes:
        stable: what is stable now.
        canary: what is a canary now; None where there is none, or where nobody says.
        formerly: what is or has been stable.
        are_known: whether the plane says so: then what is neither stable nor canary is gone.
    """

    stable: str = STABLE
    canary: str | None = None
    formerly: frozenset[str] = frozenset({STABLE})
    are_known: bool = False

    def was_stable(self, revision: str) -> bool:
        """Whether a revision's rows are a stable one's: it is stable, or has been, and was not taken back."""
        return revision == self.stable or (revision in self.formerly and revision != self.canary)

    def is_gone(self, revision: str) -> bool:
        """Whether the plane runs it no more."""
        return self.are_known and revision not in (self.stable, self.canary)


def read_revisions(workspace: Workspace, service: str) -> Revisions:
    """A service's revisions as the plane's document and the records of rollouts have them.

    Raises:
        TrafficError: the document is damaged.
        StoreUnavailable: the control database does not answer.
    """
    path = workspace.services() / f"{service}.json"
    promoted = frozenset(
        name_canary(facts.id) if phase == Phase.PROMOTED else name_restored(facts.id)
        for facts, phase in ((each.facts, each.step.phase) for each in list_rollouts(workspace, service))
        if phase in (Phase.PROMOTED, Phase.ROLLED_BACK)
    )  # fmt: skip
    document = _read_document(path)
    if document is None:
        return Revisions(formerly=promoted | {STABLE})
    try:
        stable = document["spec"]["predictor"].get("name") or STABLE
        canary = next((entry["predictor"]["name"] for entry in document["spec"].get("canary") or ()), None)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, repr(error)) from error
    return Revisions(stable, canary, promoted | {STABLE, stable}, are_known=True)


def _read_document(path: Path) -> dict[str, Any] | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        document: dict[str, Any] = content["document"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    return document


def _damaged(path: Path, got: str) -> TrafficError:
    return TrafficError(
        explain("service's document cannot be read", which=str(path), expected="an InferenceService of the local plane",
                got=" ".join(got.split()), next_step="apply the service again")
    )  # fmt: skip
