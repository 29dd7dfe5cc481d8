"""The streaming job on the named local runner: killed, restarted, replaced, and equal to the batch path at the end."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP
from e2e.killing import (
    CATALOG,
    PARTITIONS,
    PROCESSES,
    Stream,
    append_as_they_came,
    assert_equal_to_batch,
    follow,
    positions,
    run_and_kill,
    wait_for_claims,
)
from parity.adversarial import draw_events, to_table

from features.errors import EventLogError
from features.event_log.compaction import open_live_log
from features.online.store import NO_OFFSET, Watermark
from features.rows import event_schema
from features.workspace import Workspace
from transforms.stream_source import Announced, Announcing, LogReader


def stream_in(folder: Path, kills: int) -> Stream:
    workspace = Workspace(folder)
    return Stream(
        workspace=workspace,
        open_log=partial(open_live_log, workspace, CATALOG, "user", durability="process"),
        store=str(folder / "streamed"),
        kills=kills,
        seed=5,
        users=40,
    )


def test_a_stream_killed_five_times_ends_with_the_bytes_of_the_batch(tmp_path: Path) -> None:
    stream = stream_in(tmp_path, kills=5)
    assert run_and_kill(stream) >= 3
    assert_equal_to_batch(stream, tmp_path)


def test_a_stream_that_was_paused_cannot_write_once_another_runs(tmp_path: Path, redis_url: str) -> None:
    # On Redis: a process stopped within an LMDB commit would keep LMDB's own lock, and nobody else could write at all.
    stream = replace(stream_in(tmp_path, kills=0), store=redis_url)
    events = to_table(draw_events(20, 6, partitions=len(PARTITIONS)), event_schema(CATALOG.attributes_of("user")))
    with stream.open_log() as log:
        append_as_they_came(log, events.slice(0, 200), pause_s=0)
        paused = PROCESSES.Process(target=follow, args=(stream, False))
        paused.start()
        wait_for_claims(stream, log)
        os.kill(paused.pid or 0, signal.SIGSTOP)
        append_as_they_came(log, events.slice(200, 200), pause_s=0)  # something in every partition for the heir
        heir = PROCESSES.Process(target=follow, args=(stream, True))
        heir.start()
        heir.join()
        assert heir.exitcode == 0
        after_heir = positions(stream)
        append_as_they_came(log, events.slice(400), pause_s=0)
        os.kill(paused.pid or 0, signal.SIGCONT)
        paused.join(60)
        assert paused.exitcode == 1
    assert positions(stream) == after_heir
    follow(stream, until_caught_up=True)
    assert_equal_to_batch(stream, tmp_path, least_refused=0)


def test_an_error_of_ours_leaves_the_job_as_it_was_raised(tmp_path: Path) -> None:
    stream = stream_in(tmp_path, kills=0)
    stream.open_log().close()
    with stream.open_store() as store:
        store.commit(0, {}, {}, Watermark(99, 1, 1, 0), expected_previous=NO_OFFSET)
    with pytest.raises(EventLogError, match=r"^online store is ahead of the event log.*next: [^\n]*$"):
        follow(stream, until_caught_up=True)


def test_the_source_announces_growth_and_says_that_a_quiet_log_is_quiet(tmp_path: Path) -> None:
    stream = stream_in(tmp_path, kills=0)
    clock = [1_000_000]
    events = to_table(draw_events(5, 6, partitions=len(PARTITIONS)), event_schema(CATALOG.attributes_of("user")))
    with stream.open_log() as log:
        reader = LogReader(Announcing(stream.open_log, lambda: clock[0], lambda: len(heard) > 20), PARTITIONS, {})
        heard: list[Announced] = []
        append_as_they_came(log, events.slice(0, 1), pause_s=0)
        grown = int(events["log_partition"][0].as_py())
        assert reader.start()
        while reader.advance():
            heard.append(reader.get_current())
            clock[0] += 300_000
        reader.close()
    assert Announced(grown, 1, heard[0].looked_us + 300_000 * heard.index(next(a for a in heard if a.end_offset))) in heard
    assert {announced.end_offset for announced in heard if announced.partition != grown} == {0}
    gaps = [later.looked_us - sooner.looked_us for sooner, later in pairwise(a for a in heard if a.partition == grown)]
    assert min(gaps) >= 1_000_000
    assert reader.get_watermark() == MAX_TIMESTAMP
