"""Who is in an audience and why: pure functions of scores and of what is known of each user, one reason for each pair.

Two steps. What concerns a user alone comes first, for any part of the users at a time: threshold, suppression, consent, cost,
and how many campaigns one user gets, the best of them by score. What concerns an audience as a whole comes second: size, reach
and budget take the highest scores. A user whom the second step leaves out of one audience is not let into another one instead,
so the outcome does not hang on the order of campaigns or users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.errors import explain
from models.errors import SpecError

Floats32 = NDArray[np.float32]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int8]

REASONS: Final = (
    "selected", "below_threshold", "suppressed", "no_consent", "unprofitable", "frequency_cap", "over_size", "over_reach",
    "over_budget",
)  # fmt: skip
"""By code. The first is in, all others are out."""
(SELECTED, BELOW_THRESHOLD, SUPPRESSED, NO_CONSENT, UNPROFITABLE, FREQUENCY_CAP, OVER_SIZE, OVER_REACH, OVER_BUDGET) = range(9)
LIMITED: Final = (SELECTED, OVER_SIZE, OVER_REACH, OVER_BUDGET)
"""What the second step decides among; whoever it left out may come in once somebody else leaves."""


@dataclass(frozen=True)
class CampaignPolicy:
    """Whom one campaign may reach.

    Attributes:
        name: of the campaign.
        content: values of the model's request fields.
        threshold: least score. Pairs below it are not kept, so it bounds the table, too.
        size: most members; None for any number.
        reach: most members as a share of all users that were scored; None for any.
        cost_cents: of reaching one member.
        budget_cents: for all members together; None for any.
        value_cents: of one member who takes the campaign up; None where that is not known. With it, a member must bring
            what he costs: score * value_cents >= cost_cents.
        channel: what a user must have consented to; empty where nothing is asked.
        suppressed: ids that must not get it.
    """

    name: str
    content: Mapping[str, str | int]
    threshold: float
    size: int | None = None
    reach: float | None = None
    cost_cents: float = 0.0
    budget_cents: float | None = None
    value_cents: float | None = None
    channel: str = ""
    suppressed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AudiencePolicy:
    """All campaigns of one build.

    Attributes:
        campaigns: in the order of the score columns.
        most_campaigns: how many a user gets within the window of ``counted_by``, those that he got already included; None
            for any number.
        counted_by: finished feature that counts what a user got already; empty where nothing is counted.
        consent: ``profile.field`` with the channels that a user permits, separated by spaces; empty where nobody is asked.
        suppressed: ids that must get nothing.
    """

    campaigns: tuple[CampaignPolicy, ...]
    most_campaigns: int | None = None
    counted_by: str = ""
    consent: str = ""
    suppressed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Standing:
    """What is known of n users for C campaigns: (n, C) suppressed, (n, C) consent, (n,) campaigns that each may still get."""

    suppressed: Flags
    consent: Flags
    allowance: NDArray[np.int64]


def judge_users(scores: Floats32, policy: AudiencePolicy, standing: Standing) -> Codes:
    """The first step.

    Args:
        scores: (n, C) probabilities.
        policy: of the C campaigns.
        standing: of the n users.
    Returns:
        (n, C) codes of ``REASONS``, ``SELECTED`` for whoever may be in.
    """
    threshold = np.array([entry.threshold for entry in policy.campaigns], dtype=np.float32)
    least = np.array([_break_even(entry) for entry in policy.campaigns], dtype=np.float32)
    codes = np.full(scores.shape, BELOW_THRESHOLD, dtype=np.int8)
    above = scores >= threshold
    codes[above] = SELECTED
    codes[above & (scores < least)] = UNPROFITABLE
    codes[above & ~standing.consent] = NO_CONSENT
    codes[above & standing.suppressed] = SUPPRESSED
    for user in np.flatnonzero((codes == SELECTED).sum(axis=1) > standing.allowance):
        wanted = np.flatnonzero(codes[user] == SELECTED)
        best = wanted[np.argsort(-scores[user, wanted], kind="stable")]
        codes[user, best[max(int(standing.allowance[user]), 0) :]] = FREQUENCY_CAP
    return codes


def limit_audience(scores: Floats32, codes: Codes, entity_ids: pa.Array, campaign: CampaignPolicy, population: int) -> Codes:
    """The second step, for one campaign.

    Args:
        scores, codes, entity_ids: (m,) of all users with a code other than ``BELOW_THRESHOLD``; codes of the first step, or of
            an earlier second one.
        campaign: whose.
        population: users scored.
    Returns:
        (m,) codes. Among equal scores the lower id comes first.
    """
    decided = codes.copy()
    wanted = np.flatnonzero(np.isin(codes, LIMITED))
    decided[wanted] = SELECTED
    room, reason = _room(campaign, population)
    if room is None or len(wanted) <= room:
        return decided
    order = np.argsort(-scores[wanted], kind="stable")
    cut = scores[wanted][order[room - 1]] if room else np.float32(np.inf)
    decided[wanted[scores[wanted] < cut]] = reason
    ties = wanted[scores[wanted] == cut]
    places = room - int((scores[wanted] > cut).sum())
    late = sorted(ties.tolist(), key=lambda row: str(entity_ids[row]))[places:]
    decided[np.array(late, dtype=np.int64)] = reason
    return decided


def standing_of(
    entity_ids: Sequence[str], policy: AudiencePolicy, received: NDArray[np.int64] | None, permitted: Mapping[str, str] | None
) -> Standing:
    """What a policy needs to know of users.

    Args:
        entity_ids: n users.
        policy: whose campaigns.
        received: (n,) campaigns that each has got already; None where none are counted.
        permitted: channels, separated by spaces, by user; a user who is not in it permits nothing. None where nobody is asked.
    """
    users, campaigns = len(entity_ids), policy.campaigns
    suppressed = np.zeros((users, len(campaigns)), dtype=np.bool_)
    if policy.suppressed:
        suppressed |= np.array([name in policy.suppressed for name in entity_ids])[:, None]
    for column, entry in enumerate(campaigns):
        if entry.suppressed:
            suppressed[:, column] |= np.array([name in entry.suppressed for name in entity_ids])
    consent = np.ones((users, len(campaigns)), dtype=np.bool_)
    if permitted is not None:
        channels = [frozenset(permitted.get(name, "").split()) for name in entity_ids]
        given = {channel: np.array([channel in allowed for allowed in channels], dtype=np.bool_)
                 for channel in {entry.channel for entry in campaigns} if channel}  # fmt: skip
        for column, entry in enumerate(campaigns):
            if entry.channel:
                consent[:, column] = given[entry.channel]
    most = len(campaigns) if policy.most_campaigns is None else policy.most_campaigns
    allowance = np.full(users, most, dtype=np.int64)
    if received is not None and policy.most_campaigns is not None:
        allowance -= received
    return Standing(suppressed, consent, allowance)


def read_policy(content: Mapping[str, Any]) -> AudiencePolicy:
    """A policy as YAML or JSON has it: the attributes of ``AudiencePolicy`` and of each of its ``campaigns``.

    Raises:
        SpecError: a name is unknown, a value is out of range, or two campaigns share a name.
    """
    campaigns = []
    for entry in content.get("campaigns") or []:
        _require(set(entry) <= set(CampaignPolicy.__dataclass_fields__), "campaign", str(entry.get("name")), ", ".join(entry))
        for name, (low, high) in _RANGES.items():
            value = entry.get(name)
            _require(value is None or low <= value <= high, f"{name} of campaign", str(entry.get("name")), str(value))
        lacking = {"name", "content", "threshold"} - set(entry)
        _require(not lacking, "campaign", str(entry.get("name")), f"no {', '.join(sorted(lacking))}")
        campaigns.append(CampaignPolicy(**{**entry, "suppressed": frozenset(entry.get("suppressed") or ())}))
    names = [entry.name for entry in campaigns]
    _require(
        bool(names) and len(set(names)) == len(names),
        "list of campaigns",
        "names",
        f"{len(names)}, {len(set(names))} of them different",
    )
    known = set(AudiencePolicy.__dataclass_fields__)
    _require(set(content) <= known, "policy", "all", ", ".join(map(str, content)))
    rest = {name: value for name, value in content.items() if name not in ("campaigns", "suppressed")}
    return AudiencePolicy(tuple(campaigns), suppressed=frozenset(content.get("suppressed") or ()), **rest)


_RANGES: Final = {
    "threshold": (0, 1), "size": (0, math.inf), "reach": (0, 1), "cost_cents": (0, math.inf), "budget_cents": (0, math.inf),
    "value_cents": (0, math.inf),
}  # fmt: skip


def _break_even(campaign: CampaignPolicy) -> float:
    if campaign.value_cents is None:
        return 0.0
    return campaign.cost_cents / campaign.value_cents if campaign.value_cents else math.inf


def _room(campaign: CampaignPolicy, population: int) -> tuple[int | None, int]:
    """How many members there may be, and the reason of whoever comes too late; the tightest limit counts."""
    rooms = []
    if campaign.size is not None:
        rooms.append((campaign.size, OVER_SIZE))
    if campaign.reach is not None:
        rooms.append((math.floor(campaign.reach * population + 1e-9), OVER_REACH))
    if campaign.budget_cents is not None and campaign.cost_cents:
        rooms.append((math.floor(campaign.budget_cents / campaign.cost_cents + 1e-9), OVER_BUDGET))
    return min(rooms, key=lambda entry: entry[0]) if rooms else (None, SELECTED)


def _require(holds: bool, what: str, which: str, got: str) -> None:
    if not holds:
        raise SpecError(
            explain(f"{what} is not as a policy has it", which=which, got=got, next_step="docs/adr/0027 has an example",
                    expected="known names, values in range, campaigns that differ")
        )  # fmt: skip
