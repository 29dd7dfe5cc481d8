"""What a controller sees of a rollout at one look: requests, whole rows, matured labels, and what was lost of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from features.errors import EventLogError, PlumblineError
from features.served_labels import table_version
from monitoring.rollout.collector import check_collection
from monitoring.rollout.labels import read_matured, shares_of
from monitoring.rollout.observations import Observations
from monitoring.rollout.records import read_dossier
from monitoring.rollout.surroundings import Surroundings
from monitoring.rollout.track import Track
from monitoring.rollout.whole_rows import OVERLAP_US, read_whole_rows
from monitoring.verdicts import Verdict

Say = Callable[[int, str], None]
"""Tells a line about a rollout, once."""


@dataclass(frozen=True)
class Look:
    """What has come since the look before.

    Attributes:
        seen: for the gates.
        labels_version: of the table of labels that ``seen`` holds.
        collection: whether enough of what happened was seen.
    """

    seen: Observations
    labels_version: int
    collection: Verdict


def look_at_requests(around: Surroundings, track: Track, arms: Mapping[str, int], now_us: int) -> Look:
    """What the collector has: it needs neither disk nor control database.

    Args:
        arms: 0 for stable or 1 for canary, by revision.
    """
    facts = track.standing.facts
    around.collector.watch(facts.service, arms, track.since_us)
    seen, losses = around.collector.drain(facts.service, now_us)
    return Look(seen, track.labels_version, check_collection(f"{facts.service}/canary", losses, now_us))


def look(around: Surroundings, track: Track, arms: Mapping[str, int], say: Say, now_us: int) -> Look:
    """Everything that has come; arguments as of ``look_at_requests``."""
    features = _read_features(around, track, arms, say, now_us)
    labels, version = _read_labels(around, track, arms, say, now_us)
    # Last, because what the collector has handed over would be lost if the control database failed after that.
    requests = look_at_requests(around, track, arms, now_us)
    return replace(requests, seen=replace(requests.seen, **features, **labels), labels_version=version)


def _read_features(around: Surroundings, track: Track, arms: Mapping[str, int], say: Say, now_us: int) -> dict[str, Any]:
    """Of the whole rows that servers have logged lately: fields of ``Observations``."""
    names_of, facts = around.feature_names, track.standing.facts
    if names_of is None:
        return {}
    since_us = max(track.since_us, track.looked_at_us - OVERLAP_US)
    folder = around.workspace.predictions(facts.model)
    try:
        names = {version: names_of(facts.model, version) for version in (facts.stable_version, facts.canary_version)}
        return vars(read_whole_rows(folder, arms, names, since_us, now_us))
    except (PlumblineError, OSError) as error:
        # Without features nothing is promoted, but harm that the other gates find is not to wait for them.
        say(facts.id, f"rollout {facts.id}: features cannot be judged: {error}")
        return {}


def _read_labels(
    around: Surroundings, track: Track, arms: Mapping[str, int], say: Say, now_us: int
) -> tuple[dict[str, Any], int]:
    """What became of answers since the canary got its first share, if that has changed; and the table's version."""
    facts = track.standing.facts
    folder = around.workspace.served_labels(facts.model)
    try:
        version = table_version(folder)
        if version == track.labels_version:
            return {}, version
        shares = shares_of(read_dossier(around.workspace, facts.id).steps, now_us)
        return vars(read_matured(folder, arms, shares)), version
    except (EventLogError, OSError) as error:
        say(facts.id, f"rollout {facts.id}: labels cannot be judged: {error}")
        return {}, track.labels_version
