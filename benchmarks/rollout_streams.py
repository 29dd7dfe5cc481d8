"""Traffic of a service under rollout, as a collector would see it, with a canary that is equal to stable or bad in a known way.

Users are sticky, heavy-tailed in how often they come, come in sessions of several requests, and live on three continents,
so that the mix of users and the load turn with the hour. Scores are those of a calibrated logistic model of churn on twelve
features of the user; each process stands still for a moment now and then; labels are drawn from the true probability and
mature late. A bad canary feeds the same model from broken inputs, is slow, crashes, or misstates its probabilities: nothing
is written into what gates see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import CANARY, STABLE, Observations

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS: Final = {
    "equal": "the same model twice",
    "unit": "session time arrives in s instead of ms",
    "categories": "two of three plan codes are swapped",
    "missing": "a source of 3 of 12 features is NaN",
    "slow": "every answer takes 1.5 times as long",
    "crashing": "down for 1 in 5 requests, in runs of 10",
    "miscalibrated": "odds are stated twice too high",
    "retrained": "log odds differ by 0.1 here and there, 5 % slower",
}
"""All but the first and the last are bad; the last differs less than any gate's tolerance."""
SLOWDOWNS: Final = {"slow": 1.5, "retrained": 1.05}
USERS: Final = 20_000
FEATURES: Final = (
    "since_last_session_h", "sessions_7d", "session_time_ms", "revenue_30d", "clicks_30d", "shown_30d", "tenure_days",
    "open_share", "support_90d", "plan", "platform", "region",
)  # fmt: skip
PLAN, OPEN_SHARE = FEATURES.index("plan"), FEATURES.index("open_share")
SESSION_TIME, SUPPORT, REVENUE = FEATURES.index("session_time_ms"), FEATURES.index("support_90d"), FEATURES.index("revenue_30d")
WEIGHTS: Final = np.array([0.5, -0.45, -0.4, -0.15, -0.3, 0.1, -0.35, -0.25, 0.3])
PLAN_EFFECTS: Final = np.array([0.8, -0.1, -0.9])
WHOLE_ROW_SHARE: Final = 0.10
TICK_S: Final = 2
REQUESTS_A_TICK: Final = 400
HOURS_A_TICK: Final = 0.13
"""The day is played faster than the requests come, so that a rollout of minutes sees it turn."""
PAUSE_CHANCE: Final = 0.02
"""Of a process, a tick: it stops for 0.5 to 2 s, and then answers all that waited."""
LABEL_DELAY_TICKS: Final = 15


@dataclass(frozen=True)
class Population:
    """Users of one rollout: hashes, buckets in [0, 1), activity by continent, features and their own troubles."""

    entity: Ints
    bucket: Floats
    continents: tuple[Ints, ...]
    activity: tuple[Floats, ...]
    features: Floats
    means: Floats
    deviations: Floats
    failing: Floats
    slowness: Floats
    degraded: Floats


def draw_population(rng: np.random.Generator) -> Population:
    """New users, with a new draw of who would be on the canary."""
    features = np.stack(
        [
            rng.lognormal(3.0, 1.2, USERS), rng.poisson(rng.gamma(1.2, 2.5, USERS)), rng.lognormal(12.8, 0.8, USERS),
            np.where(rng.random(USERS) < 0.6, 0.0, rng.lognormal(7.0, 0.6, USERS)), rng.poisson(rng.gamma(0.7, 2.0, USERS)),
            rng.poisson(rng.gamma(2.0, 4.0, USERS)), rng.lognormal(5.0, 1.0, USERS),
            np.where(rng.random(USERS) < 0.1, np.nan, rng.beta(2.0, 5.0, USERS)), rng.poisson(0.4, USERS),
            rng.choice(3, USERS, p=(0.60, 0.28, 0.12)), rng.choice(3, USERS, p=(0.40, 0.38, 0.22)), rng.integers(0, 6, USERS),
        ],
        axis=1,
    )  # fmt: skip
    scaled = np.log1p(features[:, :9])
    activity = rng.lognormal(0.0, 1.5, USERS)
    continent = rng.choice(3, USERS, p=(0.5, 0.3, 0.2))
    members = tuple(np.flatnonzero(continent == which) for which in range(3))
    return Population(
        entity=rng.integers(-(2**63), 2**63 - 1, USERS),
        bucket=rng.random(USERS),
        continents=members,
        activity=tuple(np.cumsum(activity[who]) / activity[who].sum() for who in members),
        features=features,
        means=np.nanmean(scaled, axis=0),
        deviations=np.nanstd(scaled, axis=0),
        failing=np.where(rng.random(USERS) < 0.003, 0.3, 0.001),
        slowness=rng.normal(0.0, 0.25, USERS),
        degraded=np.where(rng.random(USERS) < 0.01, 0.2, 0.003),
    )


class Stream:
    """One rollout's traffic; ``next_tick`` gives a tick at whatever percent the rollout stands.

    ``strength`` scales how bad a canary is: log odds and log latency, and the share of its requests that are touched.
    """

    def __init__(self, kind: str, seed: tuple[int, ...], strength: float = 1.0) -> None:
        self.kind = kind
        self.strength = strength
        self._rng = np.random.default_rng(seed)
        self._population = draw_population(self._rng)
        self._hour = float(self._rng.uniform(0, 24))
        self._tick = 0
        self._down = 0
        self._pending: dict[int, tuple[npt.NDArray[np.generic], ...]] = {}

    def next_tick(self, percent: int) -> Observations:
        """The next requests, about ``REQUESTS_A_TICK``, fewer at night."""
        rng, people = self._rng, self._population
        self._tick += 1
        hour = self._hour + self._tick * HOURS_A_TICK
        loads = np.array([0.5, 0.3, 0.2]) * (1 + 0.7 * np.cos(2 * np.pi * (hour - np.array([20.0, 12.0, 4.0])) / 24))
        user = self._draw_users(loads, rng.poisson(REQUESTS_A_TICK * loads.sum()))
        arm = (people.bucket[user] < percent / 100).astype(np.int8)
        bad = arm == CANARY
        inputs = people.features[user].copy()
        inputs[:, 0] *= rng.lognormal(0.0, 0.3, len(user))
        truth = self._log_odds(inputs)
        seen = self._break_inputs(inputs, bad)
        log_odds = self._log_odds(seen) + np.where(bad, self._misstate(user), 0.0)
        failed = (rng.random(len(user)) < people.failing[user]) | self._crash(bad)
        latency = rng.lognormal(-4.6, 0.45, len(user)) * np.exp(people.slowness[user] + 0.3 * loads.sum())
        latency *= np.where(bad, SLOWDOWNS.get(self.kind, 1.0) ** self.strength, 1.0)
        latency += self._pause(arm)
        score = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
        self._delay_labels(user, arm, score, truth, failed, percent)
        labels = self._pending.pop(self._tick, None)
        whole = rng.random(len(user)) < WHOLE_ROW_SHARE
        whole &= ~failed
        return Observations(
            at_us=self._tick * TICK_S * 1_000_000,
            arm=arm,
            entity=people.entity[user],
            failed=failed,
            latency_s=latency,
            degraded=rng.random(len(user)) < people.degraded[user],
            score=np.where(failed, np.float32(np.nan), score),
            slice_code=(1 + people.features[user, PLAN]).astype(np.int16),
            feature_names=FEATURES,
            features=seen[whole].astype(np.float32),
            feature_arm=arm[whole],
            feature_entity=people.entity[user][whole],
            **({} if labels is None else dict(zip(_LABEL_COLUMNS, labels, strict=True))),  # type: ignore[arg-type]
        )

    def _draw_users(self, loads: Floats, requests: int) -> Ints:
        rng, people = self._rng, self._population
        sessions = max(requests // 2, 1)
        continent = rng.choice(3, sessions, p=loads / loads.sum())
        user = np.empty(sessions, np.int64)
        for which in range(3):
            here = continent == which
            position = np.searchsorted(people.activity[which], rng.random(int(here.sum())))
            user[here] = people.continents[which][position]
        user = np.repeat(user, rng.geometric(0.5, sessions))
        return user[np.argsort(np.arange(len(user)) + rng.uniform(0, 40, len(user)), kind="stable")]

    def _log_odds(self, inputs: Floats) -> Floats:
        people = self._population
        scaled = (np.log1p(inputs[:, :9]) - people.means) / people.deviations
        return np.asarray(-2.6 + np.nan_to_num(scaled) @ WEIGHTS + PLAN_EFFECTS[inputs[:, PLAN].astype(np.int64)])

    def _break_inputs(self, inputs: Floats, bad: npt.NDArray[np.bool_]) -> Floats:
        seen = inputs.copy()
        bad = bad & (np.arange(len(bad)) % 10 < 10 * self.strength)
        if self.kind == "unit":
            seen[bad, SESSION_TIME] /= 1_000
        elif self.kind == "categories":
            seen[bad, PLAN] = np.array([2.0, 1.0, 0.0])[inputs[bad, PLAN].astype(np.int64)]
        elif self.kind == "missing":
            seen[np.ix_(bad, (SUPPORT, REVENUE, OPEN_SHARE))] = np.nan
        return seen

    def _misstate(self, user: Ints) -> Floats | float:
        """What is added to the canary's log odds."""
        if self.kind == "retrained":
            return np.where(self._population.entity[user] % 2 == 0, 0.1, -0.1)
        return float(np.log(2.0)) * self.strength if self.kind == "miscalibrated" else 0.0

    def _crash(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        failed = np.zeros(len(bad), np.bool_)
        if self.kind == "crashing":
            turn = self._down + np.arange(int(bad.sum()))
            failed[bad] = turn % 50 >= 50 - 10 * self.strength
            self._down += int(bad.sum())
        return failed

    def _pause(self, arm: npt.NDArray[np.int8]) -> Floats:
        """Seconds that requests wait because their process stands still, either revision's as often."""
        waited, moment = np.zeros(len(arm)), np.linspace(0, TICK_S, len(arm))
        for side in (STABLE, CANARY):
            if self._rng.random() < PAUSE_CHANCE:
                begins, lasts = self._rng.uniform(0, TICK_S), self._rng.uniform(0.5, 2.0)
                left = begins + lasts - moment
                waited = np.where((arm == side) & (moment >= begins) & (left > 0), left, waited)
        return waited

    def _delay_labels(
        self,
        user: Ints,
        arm: npt.NDArray[np.int8],
        score: npt.NDArray[np.float32],
        truth: Floats,
        failed: npt.NDArray[np.bool_],
        percent: int,
    ) -> None:
        keep = ~failed
        label = self._rng.random(len(user)) < 1 / (1 + np.exp(-truth))
        share = np.full(int(keep.sum()), percent, np.float32)
        columns = (arm[keep], self._population.entity[user][keep], score[keep], label[keep], share)
        self._pending[self._tick + LABEL_DELAY_TICKS] = columns


_LABEL_COLUMNS: Final = ("label_arm", "label_entity", "label_score", "label", "label_percent")
