"""``make bench-stream``: events from the log into the store through the whole pipeline, a second of two cores.

Nearly every event concerns another user, which is the hard case: each costs a read, a merge and a write of one state. The
store is filled first, so that states are read, not made. Two worker processes divide the partitions, as ``plumb stream
--workers 2`` does. Rates are by processor time, which other processes on the machine do not stretch; wall time stands beside.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from services.servers import run_redis

from benchmarks import stream_peer
from benchmarks.stream_runs import Caught, catch_up, stay_fresh
from benchmarks.stream_site import HISTORY_DAYS, START_US, Case, Site, append
from features.codec import count_tiles
from features.layout import DAY_S, US_PER_S

LIVE_S: Final = 20.0
PARTS: Final = ("full", "users", "signals", "tiles", "redis", "fresh", "peer")


def prepare(folder: Path, store: str, case: Case) -> Site:
    """A site whose store holds the history and whose log the events to be timed."""
    site = Site(folder, store, case)
    site.open_log().close()
    site.open_store().close()
    to_us = START_US + HISTORY_DAYS * DAY_S * US_PER_S
    append(site, 0, case.history * case.users, START_US, to_us)
    catch_up(site)
    append(site, case.history * case.users, case.events, to_us, to_us + int(case.events / 50_000 * US_PER_S))
    return site


def tiles_a_user(site: Site) -> float:
    """Mean tiles of a sample of the users that have a state."""
    import pyarrow as pa

    with site.open_store() as store:
        states = [state for state in store.get_many([f"u{number}" for number in range(2_000)]).states if state]
    return float(count_tiles(pa.array(states, pa.large_binary())).mean())


def main() -> None:
    """Measure the cases asked for and print each as it is done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=Case.users)
    parser.add_argument("--events", type=int, default=Case.events)
    parser.add_argument("--rate", type=int, default=50_000, help="events a second while freshness is measured")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    arguments = parser.parse_args()
    console = Console(width=150)
    load = os.getloadavg()[0]
    full = Case(users=arguments.users, events=arguments.events)
    small = replace(full, users=max(full.users // 10, 1), events=max(full.events // 4, 1))
    cases = {"full": full, "users": small, "signals": replace(small, signals=4), "tiles": replace(small, history=20)}
    console.print("log -> validate, de-duplicate, fold, commit -> store; two workers")
    for name, case in cases.items():
        if name in arguments.only:
            with TemporaryDirectory() as folder:
                site = prepare(Path(folder), str(Path(folder) / "store"), case)
                show(console, "LMDB, every commit synced", site, catch_up(site))
    if "redis" in arguments.only:
        with TemporaryDirectory() as folder, run_redis() as port:
            site = prepare(Path(folder), f"redis://127.0.0.1:{port}/0", small)
            show(console, "Redis, in memory", site, catch_up(site))
    if "fresh" in arguments.only:
        with TemporaryDirectory() as folder:
            show_freshness(console, prepare(Path(folder), str(Path(folder) / "store"), replace(full, events=1)), arguments.rate)
    if "peer" in arguments.only:
        show_peer(console)
    console.print("aim: 100,000 events/s of two cores on LMDB with 1M users and 12 signals, 150,000 if possible")
    console.print(f"load of the machine before the run: {load:.1f} on {os.cpu_count()} cores; above 1 wall is not ours alone")


def show(console: Console, store: str, site: Site, done: Caught) -> None:
    """One case as a line."""
    case = site.case
    console.print(
        f"{store}: {case.users:,} users, {case.signals} signals, {tiles_a_user(site):.0f} tiles a user: "
        f"{done.rate:,.0f} events/s of two cores ({done.events:,} events in {done.commits} commits, {done.cpu_s:.1f} CPU s, "
        f"{done.wall_s:.1f} s)",
        highlight=False,
    )


def show_freshness(console: Console, site: Site, rate: int) -> None:
    """Append to readable while events arrive."""
    fresh = stay_fresh(site, rate, LIVE_S)
    console.print(
        f"freshness at {fresh.rate:,} events/s for {LIVE_S:.0f} s, {site.case.users:,} users: append to readable "
        f"p50 {fresh.p50_s:.2f} s, p99 {fresh.p99_s:.2f} s at most (aim 5 s); {fresh.events:,} events, {fresh.cpu_s:.1f} CPU s",
        highlight=False,
    )


def show_peer(console: Console) -> None:
    """Beam's own windows."""
    peer = stream_peer.run()
    console.print(
        f"one counter over one sliding window (1 h every 5 min) on FnApiRunner, events/s of a core: Beam CombinePerKey "
        f"{peer.beam_rate:,.0f}, fold and read {peer.fold_rate:,.0f}; {peer.values:,} counts equal",
        highlight=False,
    )


if __name__ == "__main__":
    main()
