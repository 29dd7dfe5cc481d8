"""Windows on disk: closed by time and count, taken up by the next process, no row lost or doubled by a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.drift.settings import DriftSettings
from monitoring.drift.windows import Key, Record, WindowStore, key_of, read_window
from monitoring.errors import DriftError

KEY = Key("churn", "stable", "3", "replies")
SETTINGS = DriftSettings(
    window_s=60, canary_window_s=60, shortest_window_s=10, longest_window_s=600, least_rows=10, most_rows=20, joint_features=0
)  # fmt: skip
S_US = 1_000_000
ROOT = Path(__file__).parents[2]


def record(number, at_s, rows=1):
    return Record(f"e{number}", at_s * S_US, rows, {"score": [number / 1_000] * rows})


def fill(store, numbers, at_s):
    return [store.append(KEY, record(number, at_s)) for number in numbers]


def test_a_window_closes_at_its_time_once_it_has_enough_rows(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, range(9), 100)
    assert store.close_due(160 * S_US) == []
    fill(store, [9], 161)
    (path,) = store.close_due(161 * S_US)
    assert [each.id for each in read_window(path)] == [f"e{number}" for number in range(10)]
    assert key_of(path) == KEY
    assert store.open_rows() == {}


def test_a_window_closes_by_count_but_not_before_its_shortest_time(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, range(30), 100)
    assert store.close_due(109 * S_US) == []
    (path,) = store.close_due(110 * S_US)
    records = list(read_window(path))
    # The last ten are beyond most_rows: they are counted, their values are not kept.
    assert sum(each.rows for each in records) == 30
    assert sum(each.rows for each in records if each.columns) == 20


def test_a_window_closes_at_its_longest_time_however_few_its_rows(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, [0], 100)
    assert store.close_due(699 * S_US) == []
    assert len(store.close_due(700 * S_US)) == 1


def test_an_event_that_comes_twice_counts_once_also_after_its_window_closed_or_the_process_began_anew(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    assert fill(store, [1, 1], 100) == [True, False]
    assert WindowStore(tmp_path, SETTINGS).append(KEY, record(1, 101)) is False
    store.close_due(700 * S_US)
    assert fill(store, [1], 701) == [False]
    assert WindowStore(tmp_path, SETTINGS).append(KEY, record(1, 702)) is False


def test_what_was_half_written_is_cut_off_and_comes_again(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, range(3), 100)
    (path,) = tmp_path.rglob("*.open")
    path.write_bytes(path.read_bytes()[:-5])

    again = WindowStore(tmp_path, SETTINGS)

    assert again.open_rows() == {KEY: 2}
    assert fill(again, [2], 101) == [True]
    assert [each.id for each in read_window(path)] == ["e0", "e1", "e2"]


def test_a_damaged_line_is_told_and_not_passed_over(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, range(3), 100)
    (path,) = tmp_path.rglob("*.open")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(DriftError, match=r"^window is damaged: .*line 2"):
        WindowStore(tmp_path, SETTINGS)


def test_numbers_never_come_again_and_old_windows_are_forgotten(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    names = []
    for start in (100, 800):
        fill(store, [start], start)
        (path,) = store.close_due((start + 600) * S_US)
        store.settle(path)
        names.append(path.stem)
    assert names[0] < names[1]
    store.expire(500 * S_US)
    assert [path.stem for path in tmp_path.rglob("*.judged")] == [names[1]]
    assert store.list_closed() == []


def test_rows_of_the_stable_revision_are_found_by_time_in_whatever_state(tmp_path):
    store = WindowStore(tmp_path, SETTINGS)
    fill(store, range(5), 100)
    store.close_due(700 * S_US)
    fill(store, range(5, 8), 701)
    canary = Key("churn", "canary", "4", "replies")
    found = store.rows_between(canary, "stable", 100 * S_US, 702 * S_US)
    assert [each.id for each in found] == [f"e{number}" for number in range(8)]
    assert store.rows_between(canary, "stable", 701 * S_US, 702 * S_US)[0].id == "e5"


WRITER = """
import sys
from pathlib import Path
from monitoring.drift.windows import *
from monitoring.drift.settings import DriftSettings
settings = DriftSettings(
    window_s=60, canary_window_s=60, shortest_window_s=1, longest_window_s=600, least_rows=10, most_rows=20
)
store = WindowStore(Path(sys.argv[1]), settings)
key = Key("churn", "stable", "3", "replies")
for path in store.list_closed():
    store.settle(path)
for number in range(int(sys.argv[2]), 100_000):
    now_us = (100 + number // 10) * 1_000_000
    store.append(key, Record(f"e{number}", now_us, 1, {"score": [number / 1000.0]}))
    print(number, flush=True)
    for path in store.close_due(now_us, key):
        store.settle(path)
"""


def test_kill_minus_9_loses_no_row_that_was_answered_and_doubles_none(tmp_path):
    chance = random.Random(11)
    answered = -1
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(answered + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        wanted = answered + chance.randrange(20, 400)
        for line in process.stdout:
            answered = int(line)
            if answered >= wanted:
                break
        os.kill(process.pid, signal.SIGKILL)
        # What it had answered before the signal reached it counts, too: read it out.
        for line in process.stdout:
            if line.endswith("\n"):
                answered = int(line)
        process.wait()
        process.stdout.close()
    ids = [each.id for path in sorted(tmp_path.rglob("*"), key=lambda each: each.stem) if path.is_file()
           for each in read_window(path)]  # fmt: skip
    assert len(ids) == len(set(ids))
    assert set(ids) >= {f"e{number}" for number in range(answered + 1)}
    # At most the one row that was on disk while its answer was not out.
    assert len(ids) <= answered + 2
