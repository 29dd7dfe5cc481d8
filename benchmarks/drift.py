"""``make bench-drift``: time and memory for 2,500 features, false alarms of 30 null days, seasons, and how soon drift is found.

Runs in the monitoring environment. ``python -m benchmarks.drift --bank FILE`` looks at bank_marketing in time order instead.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from alibi_detect.cd import TabularDrift
from rich.console import Console
from rich.table import Table

from benchmarks.drift_worlds import DAY_H, FEATURES, HOUR_US, MONDAY_US, World
from monitoring.drift.detectors import compare_columns, load_detectors
from monitoring.drift.judge import Judgement, Window, judge_window
from monitoring.drift.online import OnlineSettings, ShareWatch
from monitoring.drift.quality import Column
from monitoring.drift.reference import TRAINING, Reference
from monitoring.drift.sample import WEEK_HOURS, Sample, concatenate
from monitoring.drift.settings import DriftSettings
from monitoring.verdicts import Outcome

ROWS, NUMBERS, CATEGORIES, WITH_GAPS = 10_000, 2_000, 500, 50
MOST_S, MOST_BYTES = 10.0, 2e9
NULL_DAYS: Final = 30
USERS: Final = 500
TRAINING_ROWS: Final = 20_000
DRIFT_DAY: Final = 7
SETTINGS: Final = DriftSettings(joint_features=0)


def main() -> None:
    """Print each figure with the aim that it was measured for."""
    console = Console(width=140)
    if len(sys.argv) == 3 and sys.argv[1] == "--bank":
        show_bank(console, Path(sys.argv[2]))
        return
    load = os.getloadavg()[0]
    show_size(console)
    show_null_days(console)
    show_seasons(console)
    show_delays(console)
    show_online(console)
    console.print(f"load before the run: {load:.1f} on {os.cpu_count()} cores; times are processor time")


def show_size(console: Console) -> None:
    """One window of 2,500 features by 10,000 rows, beside alibi-detect called directly on the same columns."""
    rng = np.random.default_rng(1)
    reference, window = (draw_wide(rng) for _ in range(2))
    window.numbers[:, 7] += 0.5
    gaps = rng.random((ROWS, WITH_GAPS)) < 0.02
    window.numbers[:, :WITH_GAPS][gaps] = np.nan
    window.numbers[:, 9] += 5
    load_detectors()  # once a process, as a server does before its first window
    began = time.process_time()
    whole = Window("wide/stable", 0, 3_600_000_000, window, ROWS)
    judgement = judge_window(whole, Reference(TRAINING, reference), DriftSettings())
    ours_s, peak_bytes = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    columns = [Column(name, reference.numbers[:, at], window.numbers[:, at]) for at, name in enumerate(window.names)]
    columns = columns[WITH_GAPS:]
    began = time.process_time()
    direct = TabularDrift(reference.numbers[:, WITH_GAPS:], p_val=0.05).predict(
        window.numbers[:, WITH_GAPS:], drift_type="feature"
    )
    alibi_s = time.process_time() - began
    if not np.array_equal(compare_columns(columns).p_value, direct["data"]["p_val"]):
        raise AssertionError("p-values differ from alibi-detect's")
    drifted = [name for name, found in zip(judgement.ranking.names, judgement.ranking.drifted, strict=True) if found]
    table = Table("2,500 features x 10,000 rows, quality, each feature, all together and score", "measured", "aim", "reached")
    table.add_row("processor time", f"{ours_s:.1f} s", f"< {MOST_S:.0f} s", "yes" if ours_s < MOST_S else "no")
    table.add_row("peak memory", f"{peak_bytes / 1e9:.2f} GB", "< 2 GB", "yes" if peak_bytes < MOST_BYTES else "no")
    table.add_row(f"alibi-detect alone, {len(columns):,} of the numbers, p-values equal", f"{alibi_s:.1f} s", "", "")
    named = set(drifted) == {"number_7", "number_9"}
    table.add_row("named: 0.5 sigma, and 5 sigma under 2 % NaN", ", ".join(drifted), "those two", "yes" if named else "no")
    console.print(table)


def draw_wide(rng: np.random.Generator) -> Sample:
    """2,000 numbers and 500 categories."""
    letters = pa.array(list("abcdefgh"))
    return Sample(
        rng.standard_normal((ROWS, NUMBERS)).astype(np.float32),
        tuple(f"number_{number}" for number in range(NUMBERS)),
        np.zeros(ROWS, np.int64),
        {f"category_{number}": letters.take(pa.array(rng.integers(0, 8, ROWS))) for number in range(CATEGORIES)},
        score=rng.random(ROWS).astype(np.float32),
    )


def show_null_days(console: Console) -> None:
    """False alarms of hourly windows without drift, with and without the effect floor; each window is tested once and held
    against both allowances."""
    rng, world, most = np.random.default_rng(2), World(), 30.0
    settings = replace(SETTINGS, alarms_per_month=most, effect_floor=0.0)
    reference = Reference(TRAINING, world.draw_training(rng, TRAINING_ROWS))
    judged = [judge_window(world.draw_hour(rng, hour, USERS), reference, settings) for hour in range(NULL_DAYS * DAY_H)]
    title = f"{NULL_DAYS} null days, hourly windows of {USERS} users, {FEATURES + 1} features and scores"
    table = Table("effect floor", "alarms allowed", "windows that alarmed", title=title)
    for alarms in (1.0, most):
        for floor in (0.0, SETTINGS.effect_floor):
            alarmed = sum(would_fail(each, alarms / most, floor) for each in judged)
            table.add_row(f"{floor}", f"{alarms:.0f}", str(alarmed))
    console.print(table)


def would_fail(judgement: Judgement, part: float, floor: float) -> bool:
    """Whether a window without missing values would page with this part of its allowance and this effect floor."""
    ranking = judgement.ranking
    features = (ranking.p_value <= ranking.threshold * part) & (ranking.effect >= floor)
    (score,) = (verdict.evidence for verdict in judgement.verdicts if verdict.monitor.endswith("score"))
    p_value, threshold, effect = (float(score[name] or 0) for name in ("p_value", "threshold", "effect"))
    return bool(features.any()) or (p_value <= threshold * part and effect >= floor)


def show_seasons(console: Console) -> None:
    """A world with a daily and weekly season and no drift, by what its windows are held against; and how many of these windows
    are told from a season once one number is moved by 1.5 deviations."""
    world, hours = World(season=0.5), range(0, 14 * DAY_H, 5)
    table = Table(
        "seasons and no drift, every fifth hour of 14 days", "windows that alarmed", "shown only", "shifts of 1.5 found"
    )
    for rows, by_hours in ((60_000, False), (60_000, True), (20_000, True), (8_000, True), (4_000, True), (1_500, True)):
        rng = np.random.default_rng(3)
        reference = Reference(TRAINING, world.draw_training(rng, rows), by_hours=by_hours)
        name = f"{rows:,} training rows, {'by hours' if by_hours else 'whatever their hours'}"
        table.add_row(name, *count_alarms(world, rng, hours, lambda hour, known=reference: known))
    rng = np.random.default_rng(3)
    few_hours = world.draw(rng, MONDAY_US - rng.integers(1, 12, 5_000) * 41 * HOUR_US)
    reference = Reference(TRAINING, few_hours, by_hours=True)
    table.add_row("5,000 training rows of eleven instants", *count_alarms(world, rng, hours, lambda hour: reference))

    def draw_weeks(hour: int) -> Reference:
        weeks = [world.draw_hour(rng, hour - week * WEEK_HOURS, USERS).sample for week in range(1, 5)]
        return Reference("weeks", concatenate(weeks))

    table.add_row("the same hour of four earlier weeks", *count_alarms(world, rng, hours, draw_weeks))
    console.print(table)


def count_alarms(
    world: World, rng: np.random.Generator, hours: range, reference_of: Callable[[int], Reference]
) -> tuple[str, str, str]:  # fmt: skip
    """Of windows without drift, those that alarm and those that are inconclusive; of the same, shifted, those that alarm."""
    alarmed = unsure = found = 0
    for hour in hours:
        window, reference = world.draw_hour(rng, hour, USERS), reference_of(hour)
        judgement = judge_window(window, reference, SETTINGS)
        alarmed += fails(judgement)
        unsure += any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in judgement.verdicts)
        window.sample.numbers[:, FEATURES // 2] += 1.5
        found += fails(judge_window(window, reference, SETTINGS))
    return tuple(f"{count} of {len(hours)}" for count in (alarmed, unsure, found))  # type: ignore[return-value]


def show_delays(console: Console) -> None:
    """Hours from the known start of a drift to the first window that alarms, in a world with seasons."""
    start_h, repeats, most_h = DRIFT_DAY * DAY_H, 3, 14 * DAY_H
    table = Table(
        f"drift from day {DRIFT_DAY}, {repeats} worlds", "median delay", "worst", "not found in 14 days", "alarms before"
    )
    for name, world in (
        ("shift of 1 deviation", World(0.5, start_h, shift=1.0)),
        ("shift of 0.5", World(0.5, start_h, shift=0.5)),
        ("shift of 0.3", World(0.5, start_h, shift=0.3)),
        ("rise of 0.1 a day", World(0.5, start_h, ramp=0.1)),
        ("share of a category from 33 % to 50 %", World(0.5, start_h, pro_share=0.5)),
    ):
        delays, before = [], 0
        for seed in range(repeats):
            rng = np.random.default_rng(seed)
            reference = Reference(TRAINING, world.draw_training(rng, 60_000), by_hours=True)
            # A day before the drift stands for all: what null days do has a table of its own.
            hours = range(start_h - DAY_H, start_h + most_h)
            first = None
            for hour in hours:
                if fails(judge_window(world.draw_hour(rng, hour, USERS), reference, SETTINGS)):
                    if hour >= start_h:
                        first = hour - start_h + 1
                        break
                    before += 1
            delays.append(first)
        found = [delay for delay in delays if delay is not None]
        words = (f"{np.median(found):.0f} h", f"{max(found)} h") if found else ("-", "-")
        table.add_row(name, *words, f"{len(delays) - len(found)} of {repeats}", str(before))
    console.print(table)


def show_online(console: Console) -> None:
    """A share watched value by value: values between false alarms, and values until a changed share is told."""
    settings = OnlineSettings()
    rng = np.random.default_rng(4)
    watch = ShareWatch(rng.random(5_000) < 0.10, "fall", settings)
    table = Table("conversion of 10 %, online Fisher test, 1,000 values between false alarms wanted", "values")
    alarms = watch.update(rng.random(20_000) < 0.10)
    table.add_row("between false alarms", f"{20_000 / max(len(alarms), 1):,.0f} ({len(alarms)} in 20,000)")
    for share in (0.07, 0.05, 0.02):
        delays = []
        for _ in range(21):
            watch.restore({"t": 0, "random": np.random.default_rng(len(delays)).bit_generator.state})
            watch.update(rng.random(200) < 0.10)
            found = watch.update(rng.random(5_000) < share)
            delays.append(found[0] + 1 if found else 5_000)
        table.add_row(f"until a fall to {share:.0%} is told, median of 21", f"{np.median(delays):,.0f}")
    console.print(table)


def show_bank(console: Console, path: Path) -> None:
    """bank_marketing (Moro, Cortez, Rita 2014) in time order, 1,000 calls a window, beside its first 5,000 calls; then the same
    calls in random order, where nothing drifts."""
    import pandas as pd

    frame = pd.read_parquet(path).sort_values("row", kind="stable").reset_index(drop=True)
    table = Table("calls", "month", "subscribed", "features that drifted, the first three by name and effect")
    for calls, sample in split(frame, 1_000):
        judgement = judge_calls(sample, from_calls(frame[:5_000]), calls.start)
        found = int(judgement.ranking.drifted.sum())
        drifted = [f"{judgement.ranking.names[row]} {judgement.ranking.effect[row]:.2f}" for row in range(found)]
        months = "-".join(dict.fromkeys(frame["month"][calls.start : calls.stop]))
        paged = [each.monitor for each in judgement.verdicts if each.outcome is Outcome.FAIL]
        rate = f"{np.nanmean(sample.label):.1%}{' !' if 'drift.training.labels' in paged else ''}"
        table.add_row(f"{calls.start:,}", months, rate, f"{len(drifted)}: {', '.join(drifted[:3])}" if drifted else "none")
    console.print(table)
    shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    reference = from_calls(shuffled[:5_000])
    alarmed = [fails(judge_calls(sample, reference, calls.start)) for calls, sample in split(shuffled, 1_000)]
    console.print(f"the same calls in random order: {sum(alarmed)} of {len(alarmed)} windows alarmed")


def split(frame: "pd.DataFrame", rows: int) -> Iterator[tuple[range, Sample]]:  # noqa: F821, UP037
    """Windows after the first 5,000 calls, whole ones."""
    for start in range(5_000, len(frame) - rows + 1, rows):
        yield range(start, start + rows), from_calls(frame[start : start + rows])


def from_calls(frame: "pd.DataFrame") -> Sample:  # noqa: F821, UP037
    """Without the call's own duration, the calendar and the economy, which is one value a month or quarter."""
    numbers, words = ["age", "campaign", "pdays", "previous"], [
        "job", "marital", "education", "default", "housing", "loan", "contact", "poutcome",
    ]  # fmt: skip
    return Sample(
        frame[numbers].to_numpy(np.float32), tuple(numbers), np.zeros(len(frame), np.int64),
        {name: pa.array(frame[name].tolist(), pa.string()) for name in words},
        label=(frame["y"] == "yes").to_numpy(np.float32),
    )  # fmt: skip


def judge_calls(sample: Sample, reference: Sample, start: int) -> Judgement:
    """A thousand calls stand for about a day."""
    day_us = DAY_H * 3_600_000_000
    return judge_window(
        Window("bank/calls", start, start + day_us, sample, len(sample)), Reference(TRAINING, reference), SETTINGS
    )


def fails(judgement: Judgement) -> bool:
    """Whether any verdict would page."""
    return any(verdict.outcome is Outcome.FAIL for verdict in judgement.verdicts)


if __name__ == "__main__":
    main()
