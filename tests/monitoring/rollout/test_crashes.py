"""A controller that dies anywhere: between deciding and recording, recording and applying, applying and marking.

Another process takes over once the lease has expired. Whatever the plane was ever told is a recorded step's weight, recorded
before the plane was told; and in the end the rollout comes where it would have come without the crash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.rollouts.simulated import Town, broken_score, open_town

from monitoring.rollout.records import read_dossier
from monitoring.rollout.traffic import Routing

CRASHES = (2, 3, 4, 5, 16, 17, 23, 24)
"""Which call of the data plane is the last: start, a read after it, the first share, a read, the second share, a read, the
promotion, the read that sees it; 24 calls are made until then."""


class Death(BaseException):
    """The process is gone: nothing catches this."""


class Dying:
    """A data plane whose caller dies at one call, before or after the plane has done it; ``told`` dies when it is told."""

    def __init__(self, town: Town, at: int, *, after: bool) -> None:
        self._town, self._at, self._after, self._calls = town, at, after, 0
        self.traffic = town.traffic

    def _call(self, name: str, *arguments: Any) -> Any:
        self._calls += 1
        dies = self._calls == self._at
        if dies and not self._after:
            raise Death
        done = getattr(self.traffic, name)(*arguments)
        if dies:
            raise Death
        return done

    def read(self, service: str) -> Routing:
        return self._call("read", service)

    def start(self, *arguments: Any) -> Routing:
        return self._call("start", *arguments)

    def shift(self, *arguments: Any) -> Routing:
        return self._call("shift", *arguments)

    def promote(self, *arguments: Any) -> Routing:
        return self._call("promote", *arguments)

    def roll_back(self, *arguments: Any) -> Routing:
        return self._call("roll_back", *arguments)

    def restore(self, *arguments: Any) -> Routing:
        return self._call("restore", *arguments)


def run_and_die(town: Town, dying: Any) -> None:
    """A first controller until it dies, then a second one; the plane may never be ahead of what is recorded."""
    town.rate, town.lease_s = 80, 3
    town.start()
    first = town.controller("first", **dying)
    with pytest.raises(Death):
        town.run(first, seconds=60, until=lambda: check(town))
    check(town)
    second = town.controller("second")
    town.run(second, seconds=90, until=lambda: check(town) or not town.standing.needs_controller)


def check(town: Town) -> bool:
    """The plane gives the canary what the newest step says, or, while that is not applied, what the one before said."""
    steps = read_dossier(town.workspace, 1).steps
    newest, before = steps[-1], steps[-2] if len(steps) > 1 else steps[-1]
    shares = {step.percent for step in ((newest,) if newest.applied_at_us is not None else (newest, before))}
    if newest.phase == "promoted":
        promoted = town.traffic.read("churn").stable.version == 2
        assert promoted or town.percent == before.percent
    else:
        assert town.percent in shares, (town.percent, newest)
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_good_canary_is_promoted_wherever_the_controller_dies(tmp_path: Path, after: bool) -> None:
    for at in CRASHES:
        with open_town(tmp_path / str(at)) as town:
            run_and_die(town, {"traffic": Dying(town, at, after=after)})
            assert town.phase == "promoted", at
            assert town.traffic.read("churn").stable.version == 2
            assert town.registry.champions == {"churn": 2}
            assert max(step.percent for step in read_dossier(town.workspace, 1).steps[:-1]) == 50


@pytest.mark.parametrize("line", range(1, 4))
def test_a_controller_that_dies_right_after_recording_leaves_the_step_to_the_next(tmp_path: Path, line: int) -> None:
    def tell_and_die() -> Callable[[str], None]:
        told: list[str] = []

        def tell(text: str) -> None:
            told.append(text)
            if len(told) == line:
                raise Death

        return tell

    with open_town(tmp_path) as town:
        run_and_die(town, {"tell": tell_and_die()})
        assert (town.phase, town.percent) == ("promoted", 0)


@pytest.mark.parametrize("line", [1, 2])
def test_a_bad_canary_is_off_wherever_the_controller_dies(tmp_path: Path, line: int) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == line:
            raise Death

    with open_town(tmp_path) as town:
        town.answer = broken_score
        run_and_die(town, {"tell": tell})
        assert (town.phase, town.percent) == ("rolled_back", 0)
        assert town.traffic.read("churn").canary is None
        assert town.registry.champions == {"churn": 1}
