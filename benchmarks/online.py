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

AIMS = """aims: at least 0.8x raw at batch 100 and 500; >= 500,000 /s at batch 500 with 400 bytes;
single p99 < 1 ms on Redis, < 0.1 ms on LMDB; 100 features of 100 entities >= 50x Feast"""


def main() -> None:
    """Measure, and print ours beside peer and floor with ratios."""
    console = Console(width=150)
    load = os.getloadavg()[0]
    with TemporaryDirectory() as folder, run_redis() as port:
        url = f"redis://127.0.0.1:{port}/0"
        show_redis(console, url)
        show_lmdb(console, Path(folder))
        show_commits(console, url, Path(folder))
        show_finished(console, url, Path(folder))
    console.print(AIMS)
    console.print("outputs of ours, peer and floor were equal, value by value")
    console.print(
        f"load of the machine before the run: {load:.1f} on {os.cpu_count()} cores; above 1 the wall times are not ours alone"
    )


def show_redis(console: Console, url: str) -> None:
    """State reads on Redis."""
    title = "state reads on Redis: ours (positions in the same read), guarded (breaker, local copies), raw redis-py MGET"
    table = Table("bytes", "batch", "ours /s", "guarded /s", "raw /s", "ours/raw CPU", "wall", *timing_columns(), title=title)
    for size, batch, found in state_reads.run_redis_reads(url):
        ours, guarded, raw = found["ours"], found["guarded"], found["raw"]
        table.add_row(
            str(size), str(batch), *(rate(each, batch) for each in (ours, guarded, raw)),
            f"{raw.cpu_s / ours.cpu_s:.2f}x", f"{raw.p50_s / ours.p50_s:.2f}x", *timings(ours),
        )  # fmt: skip
    console.print(table)


def show_lmdb(console: Console, folder: Path) -> None:
    """State reads on LMDB."""
    table = Table("bytes", "batch", "ours /s", *timing_columns(), title="state reads on LMDB")
    for size, batch, ours in state_reads.run_lmdb_reads(folder):
        table.add_row(str(size), str(batch), rate(ours, batch), *timings(ours))
    console.print(table)


def show_commits(console: Console, url: str, folder: Path) -> None:
    """Commits on both stores."""
    title = "commits of 400-byte states: fenced, with changelog and position; raw: one MSET"
    table = Table("store", "values", "ours /s", "raw /s", "ours/raw CPU", "wall", *timing_columns(), title=title)
    for store, count, found in state_reads.run_commits(url, folder):
        ours, raw = found["ours"], found.get("raw")
        beside = (rate(raw, count), f"{raw.cpu_s / ours.cpu_s:.2f}x", f"{raw.p50_s / ours.p50_s:.2f}x") if raw else ("", "", "")
        table.add_row(store, str(count), rate(ours, count), *beside, *timings(ours))
    console.print(table)


def show_finished(console: Console, url: str, folder: Path) -> None:
    """Finished features beside Feast."""
    title = "100 finished features: ours from 60 tiles of state, Feast 0.67 from ready values in the same Redis"
    columns = ("entities", "form", "ours /s", "Feast /s", "Feast/ours wall", "CPU", *timing_columns(), "Feast p50 ms", "CPU ms")
    table = Table(*columns, title=title)
    for batch, found in finished_reads.run(url, folder):
        feast = found["Feast"]
        for form, ours in (("array", found["ours"]), ("lists by name", found["by name"])):
            table.add_row(
                str(batch), form, rate(ours, batch), rate(feast, batch), f"{feast.p50_s / ours.p50_s:.1f}x",
                f"{feast.cpu_s / ours.cpu_s:.1f}x", *timings(ours), f"{feast.p50_s * 1e3:.2f}", f"{feast.cpu_s * 1e3:.2f}",
            )  # fmt: skip
    console.print(table)


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
