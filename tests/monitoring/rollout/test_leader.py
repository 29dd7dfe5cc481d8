"""Which controller acts, on both control databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.workspace import Workspace
from monitoring.errors import LeaseLost
from monitoring.rollout.leader import US_PER_S, Claim, fenced, read_lease, release, take

ANN, BOB = Claim("ann", ttl_s=10), Claim("bob", ttl_s=10)
START_US = 1_700_000_000 * US_PER_S


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path, control_url)


def test_the_first_to_ask_gets_the_lease_and_the_other_waits_until_it_expires(workspace: Workspace) -> None:
    ann = take(workspace, ANN, None, START_US)
    assert ann is not None
    assert (ann.token, ann.expires_at_us) == (1, START_US + 10 * US_PER_S)
    assert take(workspace, BOB, None, START_US + 10 * US_PER_S - 1) is None
    bob = take(workspace, BOB, None, START_US + 10 * US_PER_S)
    assert bob is not None
    assert bob.token == 2


def test_a_holder_that_renews_in_time_keeps_its_token(workspace: Workspace) -> None:
    ann = take(workspace, ANN, None, START_US)
    again = take(workspace, ANN, ann, START_US + 9 * US_PER_S)
    assert again is not None
    assert (again.token, again.expires_at_us) == (1, START_US + 19 * US_PER_S)


def test_a_holder_that_comes_back_too_late_gets_a_new_token_or_nothing(workspace: Workspace) -> None:
    ann = take(workspace, ANN, None, START_US)
    late = take(workspace, ANN, ann, START_US + 11 * US_PER_S)
    assert late is not None
    assert late.token == 2
    assert take(workspace, BOB, None, START_US + 30 * US_PER_S) is not None
    assert take(workspace, ANN, late, START_US + 31 * US_PER_S) is None


def test_what_a_lost_lease_tries_to_record_is_refused(workspace: Workspace) -> None:
    ann = take(workspace, ANN, None, START_US)
    assert ann is not None
    with fenced(workspace, ann, START_US + 1):
        pass
    with (
        pytest.raises(LeaseLost, match="lease is lost: controller of ann; expected token 1, not expired"),
        fenced(workspace, ann, ann.expires_at_us),
    ):
        pass
    take(workspace, BOB, None, ann.expires_at_us)
    # Its own clock may stand still while it sleeps; the token tells all the same.
    with pytest.raises(LeaseLost, match="got token 2 of bob"), fenced(workspace, ann, START_US + 1):
        pass


def test_a_released_lease_is_free_at_once_and_only_its_holder_can_release_it(workspace: Workspace) -> None:
    ann = take(workspace, ANN, None, START_US)
    assert ann is not None
    release(workspace, ann, START_US + 1)
    bob = take(workspace, BOB, None, START_US + 1)
    assert bob is not None
    release(workspace, ann, START_US + 2)
    assert read_lease(workspace) == bob


def test_of_many_that_ask_at_once_one_gets_it(workspace: Workspace) -> None:
    claims = [Claim(f"process {number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda claim: take(workspace, claim, None, START_US), claims))
    (winner,) = [lease for lease in taken if lease is not None]
    assert read_lease(workspace) == winner
