"""All users by many campaigns from state to Delta, on every core, beside the same pairs scored row by row.

    python -m benchmarks.audience [--users 1000000] [--campaigns 100] [--usd-per-core-hour 0.04]

The row-by-row figure is of the same SavedModel's plain signature, in batches of ``ROWS``: the graph and both towers once a
pair. It is measured on a sample of pairs, whose scores are compared with those of the matrix product.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import tensorflow as tf
from planted.campaigns import DAY_US, DAYS, START_US, plant_campaigns

from benchmarks.audience_site import draw_policy, fill_campaigns, fill_store
from components.audiences import AudienceSite, build_audiences
from components.declarations import declarations_of
from components.training_rows import build_training_rows
from features.audiences import read_audiences
from features.online.addresses import ViewVersion
from features.workspace import Workspace
from models.audience_figures import measure_audiences
from models.specs import load_spec
from models.train import train
from transforms.export import export_model
from transforms.fit import fit_graph
from transforms.scoring import TowerScorer, close_stores, shared_store

ROWS: Final = 1_024
SAMPLE_USERS: Final = 400
NOW_US: Final = START_US + DAYS * DAY_US
SEED: Final = 11


def make_model(root: Path) -> Path:
    """Train and export the shipped model on a planted shop."""
    workspace = Workspace(root / "shop")
    run = root / "run"
    run.mkdir()
    plant_campaigns(workspace, users=400, spread_days=6)
    build_training_rows(workspace, "audience", 0, run / "rows.parquet")
    fit_graph(run / "rows.parquet", *declarations_of("audience"), run / "graph")
    train(load_spec("audience"), run / "graph" / "features.parquet", run / "network", seed=0)
    export_model(run / "graph", run / "network" / "network.keras", root / "model")
    return root / "model" / "saved_model"


def score_row_by_row(site: AudienceSite, names: list[str]) -> tuple[np.ndarray, float]:
    """Scores (n, C) of some users pair by pair through the plain signature, and the processor seconds that it took."""
    catalog, view = declarations_of("audience")
    job = site.job(NOW_US)
    found = shared_store(site.store, ViewVersion.of(catalog, view)).get_many(names)
    plain = tf.saved_model.load(str(site.saved_model)).signatures["serving_default"]
    campaigns = len(next(iter(job.campaigns.values())))
    user = np.repeat(np.arange(len(names)), campaigns)
    place = np.tile(np.arange(campaigns), len(names))
    request = {
        entry.name: np.array(job.campaigns[entry.name], object if entry.dtype == "string" else np.int64)
        for entry in view.request
    }
    own = {entry.name: entry.default for entry in catalog.profile_fields_of(view)}
    states = np.array(found.states, object)
    scores, cpu_s = [], 0.0
    for start in range(0, len(user), ROWS):
        rows, fields = user[start : start + ROWS], place[start : start + ROWS]
        before = time.process_time()
        inputs = {"state": tf.constant(states[rows]), "now": tf.fill([len(rows)], tf.constant(NOW_US, tf.int64))}
        inputs |= {name: tf.fill([len(rows)], tf.constant(value)) for name, value in own.items()}
        inputs |= {name: tf.constant(values[fields]) for name, values in request.items()}
        scores.append(plain(**inputs)["score"].numpy())
        cpu_s += time.process_time() - before if start else 0.0  # the first call also traces
    return np.concatenate(scores).reshape(len(names), campaigns), cpu_s * len(user) / max(len(user) - ROWS, 1)


def show(label: str, evaluations: int, cpu_s: float, usd_per_core_hour: float) -> None:
    """One line: rate a core and cost."""
    usd = cpu_s / 3_600 * usd_per_core_hour / evaluations * 1_000
    print(f"{label:<34} {evaluations / cpu_s:>14,.0f} a core-second   {usd:.2e} USD per 1,000 evaluations")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--campaigns", type=int, default=100)
    parser.add_argument("--usd-per-core-hour", type=float, default=0.04)
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="plumb-bench-audience-") as folder:
        root = Path(folder)
        saved_model = make_model(root)
        store = root / "stores" / declarations_of("audience")[1].key
        size = fill_store(store, asked.users, NOW_US, SEED)
        content = draw_policy(asked.campaigns, {"grocery": 0.35, "home": 0.35, "produce": 0.35})
        fill_campaigns(store, [entry["name"] for entry in content["campaigns"]], NOW_US, SEED)
        site = AudienceSite(Workspace(root), "audience", 1, saved_model, str(store), content)
        before, cpu = time.perf_counter(), time.process_time()
        build_audiences(site, now_us=NOW_US, workers=cores)
        wall_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu
        found = read_audiences(site.folder)
        names = [f"user-{number:09d}" for number in range(0, asked.users, max(asked.users // SAMPLE_USERS, 1))][:SAMPLE_USERS]
        single, single_cpu_s = score_row_by_row(site, names)
        users = shared_store(site.store, ViewVersion.of(*declarations_of("audience")))
        matrix, _ = TowerScorer(site.job(NOW_US)).score(users.get_many(names).states, [None] * len(names))
        close_stores()
        disk = sum(path.stat().st_size for path in site.folder.rglob("*.parquet"))
    evaluations = asked.users * asked.campaigns
    members = sum(entry.members for entry in measure_audiences(found))
    print(
        f"{asked.users:,} users x {asked.campaigns} campaigns, {size / asked.users:,.0f} bytes of state a user, {cores} cores"
    )
    print(f"from state to Delta: {wall_s:.1f} s wall, {cpu_s:.1f} s processor, {evaluations / wall_s:,.0f} evaluations/s")
    print(f"{found.rows.height:,} rows of {disk / 1e6:,.0f} MB kept, {members:,} of them members")
    show("towers and one matrix product", evaluations, cpu_s, asked.usd_per_core_hour)
    show(f"row by row, batches of {ROWS:,}", single.size, single_cpu_s, asked.usd_per_core_hour)
    ratio = (single_cpu_s / single.size) / (cpu_s / evaluations)
    print(f"ratio {ratio:,.0f}; greatest difference of {single.size:,} scores {np.abs(matrix - single).max():.1e}")
    assert np.abs(matrix - single).max() <= 1e-6


if __name__ == "__main__":
    main()
