"""``make chaos``: kill -9 of controller, plane and servers at random while versions are rolled out under traffic.

Exits with 1 if a weight was not the recorded one, a revision at 0 % answered, or the line did not recover.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from e2e.rollouts.chaos import open_chaos


def main() -> int:
    """Run it, print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long things are killed")
    parser.add_argument("--rate", type=int, default=40, help="requests a second")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="plumbline-chaos-") as folder,
        open_chaos(Path(folder), random.Random(given.seed)) as chaos,
    ):
        report = chaos.run(given.seconds, rate=given.rate, users=2_000)
    sys.stdout.write(f"{report}\n")
    for line in (report.wrong_weights + report.stray)[:20]:
        sys.stdout.write(f"  {line}\n")
    return int(bool(report.wrong_weights or report.stray) or not report.answered_in_the_end)


if __name__ == "__main__":
    sys.exit(main())
