from __future__ import annotations

from features.online.breaker import CLOSED, HALF_OPEN, OPEN, Breaker

SECOND = 1_000_000


def opened(at_us: int = 0) -> Breaker:
    breaker = Breaker(failures_to_open=3, open_s=5)
    for _ in range(3):
        breaker.failed(at_us)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures_to_open=3, open_s=5)
    breaker.failed(0)
    breaker.failed(0)
    assert (breaker.state, breaker.allows(0)) == (CLOSED, True)
    breaker.failed(0)
    assert (breaker.state, breaker.allows(0)) == (OPEN, False)


def test_an_answer_between_failures_starts_the_count_again() -> None:
    breaker = Breaker(failures_to_open=2, open_s=5)
    for _ in range(10):
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state == CLOSED


def test_after_its_time_one_call_tries_and_the_others_wait() -> None:
    breaker = opened()
    assert not breaker.allows(5 * SECOND - 1)
    assert breaker.allows(5 * SECOND)
    assert breaker.state == HALF_OPEN
    assert not breaker.allows(5 * SECOND)


def test_a_trial_that_is_answered_closes_it() -> None:
    breaker = opened()
    breaker.allows(5 * SECOND)
    breaker.succeeded()
    assert (breaker.state, breaker.allows(5 * SECOND)) == (CLOSED, True)
    breaker.failed(6 * SECOND)
    assert breaker.state == CLOSED


def test_a_trial_that_fails_opens_it_for_the_whole_time_again() -> None:
    breaker = opened()
    breaker.allows(5 * SECOND)
    breaker.failed(6 * SECOND)
    assert breaker.state == OPEN
    assert not breaker.allows(11 * SECOND - 1)
    assert breaker.allows(11 * SECOND)


def test_a_trial_of_which_nobody_tells_does_not_keep_it_open_for_ever() -> None:
    breaker = opened()
    breaker.allows(5 * SECOND)
    assert not breaker.allows(10 * SECOND - 1)
    assert breaker.allows(10 * SECOND)
