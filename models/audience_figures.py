"""What an audience amounts to: size, expected take-ups, lift over sending to everybody, and what audiences share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.audiences import BELOW_THRESHOLD, PAIR, SELECTED, Audiences

STAYED: Final = "stayed"


@dataclass(frozen=True)
class CampaignFigures:
    """One campaign's audience.

    Attributes:
        members: users who are in; ``share`` of all that were scored.
        mean_score: of the members; 0 where there are none.
        population_mean: of all users.
        lift: the first over the second: how many times as many take-ups a message brings as one to anybody would. An estimate
            by the model's own calibrated scores; what a campaign causes, only a group that did not get it can tell.
        expected: take-ups among the members, the sum of their scores.
        reasons: users by why they are out, the most frequent first.
    """

    campaign: str
    members: int
    share: float
    mean_score: float
    population_mean: float
    lift: float
    expected: float
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Moves:
    """Between two versions, by campaign: users who came, went and stayed, and why those who went did."""

    campaign: str
    came: int
    went: int
    stayed: int
    reasons: Mapping[str, int]


def measure_audiences(audiences: Audiences) -> list[CampaignFigures]:
    """The figures of each campaign, in the policy's order."""
    sweep = audiences.sweep
    found = []
    for campaign, population_mean in sweep.mean_scores.items():
        rows = audiences.rows.filter(pl.col("campaign") == campaign)
        scores = rows.filter("member")["score"].cast(pl.Float64)
        counts = rows.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
        reasons = dict(zip(counts["reason"].to_list(), counts["len"].to_list(), strict=True))
        reasons.pop(SELECTED, None)
        reasons[BELOW_THRESHOLD] = sweep.population - rows.height
        mean = float(scores.sum() / max(scores.len(), 1))
        figures = CampaignFigures(
            campaign, scores.len(), scores.len() / max(sweep.population, 1), mean, population_mean,
            mean / population_mean if population_mean else 0.0, float(scores.sum()), reasons,
        )  # fmt: skip
        found.append(figures)
    return found


def measure_overlap(audiences: Audiences) -> tuple[list[str], NDArray[np.float64]]:
    """Campaigns, and (C, C) the share of the row's members who are in the column's audience, too."""
    names = list(audiences.sweep.mean_scores)
    members = audiences.rows.filter("member").select(PAIR)
    pairs = members.join(members, on="entity_id").group_by("campaign", "campaign_right").len()
    shared = np.zeros((len(names), len(names)))
    for one, other, count in pairs.iter_rows():
        shared[names.index(one), names.index(other)] = count
    return names, shared / np.maximum(np.diag(shared)[:, None], 1)


def measure_moves(before: Audiences, after: Audiences) -> list[Moves]:
    """Who came and went between two versions, by campaign of either."""
    names = list(dict.fromkeys([*after.sweep.mean_scores, *before.sweep.mean_scores]))
    earlier, later = (entry.rows.filter("member").select(PAIR) for entry in (before, after))
    came, went = later.join(earlier, on=PAIR, how="anti"), earlier.join(later, on=PAIR, how="anti")
    why = went.join(after.rows.select(*PAIR, "reason"), on=PAIR, how="left").with_columns(
        pl.col("reason").fill_null(BELOW_THRESHOLD)
    )
    moves = []
    for name in names:
        mine = pl.col("campaign") == name
        counts = why.filter(mine).group_by("reason").len().sort(["len", "reason"], descending=[True, False])
        reasons = dict(zip(counts["reason"].to_list(), counts["len"].to_list(), strict=True))
        stayed = later.filter(mine).height - came.filter(mine).height
        moves.append(Moves(name, came.filter(mine).height, went.filter(mine).height, stayed, reasons))
    return moves
