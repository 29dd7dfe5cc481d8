"""The lines below are copied from what kfp 2.17.0 prints; tests/pipelines/test_run.py has KFP print its own."""

from __future__ import annotations

import io

from pipelines.records import StepRecord
from pipelines.steps import StepWatch

CYAN, RED, GREEN, RESET = "\x1b[96m", "\x1b[91m", "\x1b[92m", "\x1b[0m"


def started(step: str) -> str:
    return f"12:00:00.001 - INFO - Executing task {CYAN}'{step}'{RESET}\n12:00:00.002 - INFO - Streamed logs:\n\n"


def succeeded(step: str) -> str:
    return f"12:00:01.000 - INFO - Task {CYAN}'{step}'{RESET} finished with status {GREEN}SUCCESS{RESET}\n"


def failed(step: str) -> str:
    return f"12:00:01.000 - ERROR - Task {CYAN}'{step}'{RESET} finished with status {RED}FAILURE{RESET}\n"


def watch(*names: str) -> tuple[StepWatch, list[tuple[StepRecord, ...]]]:
    seen: list[tuple[StepRecord, ...]] = []
    ticks = iter(range(0, 1_000, 10))
    return StepWatch(names, io.StringIO(), clock=lambda: float(next(ticks)), notify=seen.append), seen


def test_a_step_runs_from_its_first_line_to_its_last_and_is_timed_by_the_given_clock() -> None:
    stream, seen = watch("rows", "train")
    stream.write(started("rows"))
    stream.write(succeeded("rows"))
    assert [step.status for step in seen[0]] == ["running", "waiting"]
    assert seen[1] == (StepRecord("rows", "succeeded", 10.0, 1), StepRecord("train"))


def test_text_may_arrive_in_pieces() -> None:
    stream, _ = watch("rows")
    for character in started("rows") + succeeded("rows"):
        stream.write(character)
    assert stream.steps[0].status == "succeeded"


def test_the_reason_of_a_failure_is_its_last_error_line_without_the_module_path() -> None:
    stream, _ = watch("rows")
    stream.write(started("rows"))
    stream.write(
        "    Traceback (most recent call last):\n    KeyError: 'x'\n    features.errors.EventLogError: log is missing: user\n"
    )
    stream.write("    I0000 closing down\n\n\n")
    stream.write(failed("rows"))
    assert stream.steps[0] == StepRecord("rows", "failed", 10.0, 1, "EventLogError: log is missing: user")


def test_a_step_killed_without_an_error_line_gives_its_last_line() -> None:
    stream, _ = watch("rows")
    stream.write(started("rows") + "    reading\n" + failed("rows"))
    assert stream.steps[0].reason == "reading"


def test_a_retried_step_adds_its_seconds_and_keeps_no_old_reason() -> None:
    stream, _ = watch("rows")
    stream.write(started("rows") + "    ValueError: once\n" + failed("rows"))
    stream.write(started("rows") + succeeded("rows"))
    assert stream.steps[0] == StepRecord("rows", "succeeded", 20.0, 2)


def test_steps_that_never_started_are_skipped_and_one_that_never_ended_has_failed() -> None:
    stream, seen = watch("rows", "train", "register")
    stream.write(started("rows") + succeeded("rows") + started("train"))
    stream.end()
    assert [step.status for step in seen[-1]] == ["succeeded", "failed", "skipped"]
