"""``python -m benchmarks``: run everything and print it as tables."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

from plumb.settings import prepare_native_libraries

prepare_native_libraries(os.environ)

from benchmarks import folding, graph  # noqa: E402 - TensorFlow reads the environment while it loads


def main() -> None:
    """Measure, and print ours beside peer and floor with ratios."""
    console = Console(width=150)
    table = Table(
        "tiles",
        "batch",
        "ours /s",
        "every tile x window /s",
        "ratio",
        "network alone /s",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        title="graph + network, predictions a second, one core, 120 windows, 128-64-1",
    )
    for tiles, batch, ours, peer, floor in graph.run():
        count = int(batch)
        table.add_row(
            tiles,
            batch,
            f"{ours.rate(count):,.0f}",
            f"{peer.rate(count):,.0f}",
            f"{peer.cpu_s / ours.cpu_s:.1f}x",
            f"{floor.rate(count):,.0f}",
            f"{ours.p50_s * 1e3:.2f}",
            f"{ours.p99_s * 1e3:.2f}",
            f"{ours.cpu_s * 1e3:.2f}",
        )
    console.print(table)
    table = Table("what", "ours /s", "floor /s", "ratio", "p50 ms", "p99 ms", "CPU ms", title="state, one core")
    for name, items, ours, floor, floor_items in folding.run():
        ratio = ours.rate(items) / floor.rate(floor_items)
        table.add_row(
            name,
            f"{ours.rate(items):,.0f}",
            f"{floor.rate(floor_items):,.0f}",
            f"{ratio:.1f}x",
            f"{ours.p50_s * 1e3:.1f}",
            f"{ours.p99_s * 1e3:.1f}",
            f"{ours.cpu_s * 1e3:.1f}",
        )
    console.print(table)
    console.print("outputs of ours, peer and floor were equal, value by value")


if __name__ == "__main__":
    main()
