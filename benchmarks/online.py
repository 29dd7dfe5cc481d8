"""``make bench-online``: state and feature lookups on a Redis of our own, and on LMDB, beside peers and floors."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from services.servers import run_redis

from plumb.settings import prepare_native_libraries

prepare_native_libraries(os.environ)
os.environ["FEAST_USAGE"] = "False"

from benchmarks import finished_reads, state_reads  # noqa: E402 - TensorFlow and Feast read the environment while they load
from benchmarks.state_reads import Reads  # noqa: E402

Aims = list[tuple[str, str, bool]]
"""What was aimed at, what was measured, whether it was reached: a ratio by wall time and by processor time, both."""


def main() -> None:
    """Measure, and print ours beside peer and floor with ratios, then each aim."""
    console = Console(width=150)
    load = os.getloadavg()[0]
    with TemporaryDirectory() as folder, run_redis() as port:
        url = f"redis://127.0.0.1:{port}/0"
        aims = show_redis(console, url)
        aims += show_lmdb(console, Path(folder))
        show_commits(console, url, Path(folder))
        aims += show_finished(console, url, Path(folder))
    table = Table("aim", "measured", "reached", title="aims")
    for aim, measured, reached in aims:
        table.add_row(aim, measured, "yes" if reached else "no")
    console.print(table)
    console.print("outputs of ours, peer and floor were equal, value by value")
    console.print(f"load before the run: {load:.1f} on {os.cpu_count()} cores; above 1, wall times are not ours alone")


def show_redis(console: Console, url: str) -> Aims:
    """State reads on Redis."""
    title = "state reads on Redis: ours (positions in the same read), guarded (breaker, local copies), raw redis-py MGET"
    columns = ("bytes", "batch", "ours /s", "guarded /s", "raw /s", "ours/raw wall", "CPU", *timing_columns())
    table, aims = Table(*columns, title=title), Aims()
    for size, batch, found in state_reads.run_redis_reads(url):
        ours, guarded, raw = found["ours"], found["guarded"], found["raw"]
        wall, cpu = raw.p50_s / ours.p50_s, raw.cpu_s / ours.cpu_s
        table.add_row(
            str(size), str(batch), *(rate(each, batch) for each in (ours, guarded, raw)), f"{wall:.2f}x", f"{cpu:.2f}x",
            *timings(ours),
        )  # fmt: skip
        if batch == 1:
            aims.append((f"Redis, {size} bytes, single: p99 < 1 ms", f"{ours.p99_s * 1e3:.3f} ms", ours.p99_s < 1e-3))
            continue
        aims.append((f"Redis, {size} bytes, batch {batch}: >= 0.8x raw", f"{wall:.2f}x, CPU {cpu:.2f}x", min(wall, cpu) >= 0.8))
        if (size, batch) == (400, 500):
            aims.append(("Redis, 400 bytes, batch 500: >= 500,000 /s", rate(ours, batch), batch / ours.p50_s >= 500_000))
    console.print(table)
    return aims


def show_lmdb(console: Console, folder: Path) -> Aims:
    """State reads on LMDB."""
    table, aims = Table("bytes", "batch", "ours /s", *timing_columns(), title="state reads on LMDB"), Aims()
    for size, batch, ours in state_reads.run_lmdb_reads(folder):
        table.add_row(str(size), str(batch), rate(ours, batch), *timings(ours))
        if batch == 1:
            aims.append((f"LMDB, {size} bytes, single: p99 < 0.1 ms", f"{ours.p99_s * 1e3:.3f} ms", ours.p99_s < 1e-4))
    console.print(table)
    return aims


def show_commits(console: Console, url: str, folder: Path) -> None:
    """Commits on both stores."""
    title = "commits of 400-byte states: fenced, with changelog and position; raw: one MSET"
    table = Table("store", "values", "ours /s", "raw /s", "ours/raw wall", "CPU", *timing_columns(), title=title)
    for store, count, found in state_reads.run_commits(url, folder):
        ours, raw = found["ours"], found.get("raw")
        beside = (rate(raw, count), f"{raw.p50_s / ours.p50_s:.2f}x", f"{raw.cpu_s / ours.cpu_s:.2f}x") if raw else ("", "", "")
        table.add_row(store, str(count), rate(ours, count), *beside, *timings(ours))
    console.print(table)


def show_finished(console: Console, url: str, folder: Path) -> Aims:
    """Finished features beside Feast."""
    title = "100 finished features of n entities: ours from states, Feast 0.67 from ready values in the same Redis"
    columns = (
        "tiles",
        "n",
        "form",
        "ours /s",
        "Feast /s",
        "Feast/ours wall",
        "CPU",
        *timing_columns(),
        "Feast p50 ms",
        "CPU ms",
    )
    table, aims = Table(*columns, title=title), Aims()
    for tiles, batch, found in finished_reads.run(url, folder):
        feast = found["Feast"]
        for form, ours in (("array", found["ours"]), ("lists by name", found["by name"])):
            wall, cpu = feast.p50_s / ours.p50_s, feast.cpu_s / ours.cpu_s
            table.add_row(
                str(tiles), str(batch), form, rate(ours, batch), rate(feast, batch), f"{wall:.1f}x", f"{cpu:.1f}x",
                *timings(ours), f"{feast.p50_s * 1e3:.2f}", f"{feast.cpu_s * 1e3:.2f}",
            )  # fmt: skip
            if batch > 1:
                name = f"100 features of {batch} entities from {tiles} tiles, {form}: >= 50x Feast"
                aims.append((name, f"{wall:.1f}x, CPU {cpu:.1f}x", min(wall, cpu) >= 50))
    console.print(table)
    return aims


def rate(reads: Reads, items: int) -> str:
    """Items a second of wall time, at the median."""
    return f"{items / reads.p50_s:,.0f}"


def timing_columns() -> tuple[str, ...]:
    """Headings of ``timings``."""
    return ("p50 ms", "p99 ms", "CPU ms", "server CPU ms")


def timings(reads: Reads) -> tuple[str, ...]:
    """Ours, in milliseconds of wall time and of processor time of client and server."""
    return tuple(f"{seconds * 1e3:.3f}" for seconds in (reads.p50_s, reads.p99_s, reads.cpu_s, reads.server_cpu_s))


if __name__ == "__main__":
    main()
