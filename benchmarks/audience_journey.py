"""The audience model on 84.51's Complete Journey: time split, and whole campaigns left out.

    python -m benchmarks.audience_journey FOLDER

FOLDER holds the data set's Parquet files. A campaign's content is made from its coupons: the department of most of their
products, how many products, how long, and its type as the offer. The test is of the newest campaigns whose four weeks have
passed. Each campaign begins for everybody on one day, so no training row has seen one of them: every figure is of cold
campaigns. The last lines leave out one type of campaign from training as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import keras
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.declarations import declarations_of
from components.training_rows import build_training_rows
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.profiles import append_profiles
from features.rows import TIME
from features.workspace import Workspace
from models import bootstrap
from models.evaluate import evaluate
from models.frame import read_frame
from models.specs import load_spec
from models.train import EVALUATED_FILE, predict, train
from transforms.fit import fit_graph

DEPARTMENTS: Final = {
    "GROCERY": "grocery", "DRUG GM": "home", "PRODUCE": "produce", "MEAT": "meat", "MEAT-PCKGD": "meat",
    "SEAFOOD-PCKGD": "meat", "DELI": "meat", "NUTRITION": "health", "COSMETICS": "beauty",
}  # fmt: skip
TABLES: Final = (
    "campaigns", "campaign_descriptions", "coupons", "coupon_redemptions", "products", "transactions_sample", "demographics",
)  # fmt: skip
SEEDS: Final = (0, 1, 2)


def import_journey(folder: Path, workspace: Workspace) -> None:
    """Campaigns, redemptions and baskets as events of the catalog ``campaigns``; demographics as a profile."""
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    category = pl.col("department").replace_strict(DEPARTMENTS, default="other")
    products = tables["products"].select("product_id", category=category)
    offered = tables["coupons"].join(products, on="product_id")
    most = offered.group_by("campaign_id", "category").len().sort("len", "category").group_by("campaign_id").last()
    content = most.select("campaign_id", "category").join(
        offered.group_by("campaign_id").agg(products=pl.len()), on="campaign_id"
    )
    content = tables["campaign_descriptions"].join(content, on="campaign_id", how="left")
    sent = tables["campaigns"].join(content, on="campaign_id").select(
        entity_id="household_id", event_type=pl.lit("campaign_sent"), at=pl.col("start_date").cast(pl.Datetime("us")),
        campaign="campaign_id", category=pl.col("category").fill_null("other"), offer="campaign_type", channel=pl.lit("mail"),
        duration_days=(pl.col("end_date") - pl.col("start_date")).dt.total_days(),
        products=pl.col("products").fill_null(0).cast(pl.Int64),
        delay_s=pl.lit(0),
    )  # fmt: skip
    redeemed = tables["coupon_redemptions"].join(content, on="campaign_id")
    taken = redeemed.unique(["household_id", "campaign_id", "redemption_date"]).select(
        entity_id="household_id", event_type=pl.lit("campaign_taken"),
        at=pl.col("redemption_date").cast(pl.Datetime("us")) + pl.duration(hours=12),
        campaign="campaign_id", category=pl.col("category").fill_null("other"), delay_s=pl.lit(8 * HOUR_S),
    )  # fmt: skip
    lines = tables["transactions_sample"].join(products, on="product_id", how="left")
    bought = lines.group_by("household_id", "basket_id", pl.col("category").fill_null("other")).agg(
        at=pl.col("transaction_timestamp").min().cast(pl.Datetime("us")),
        amount_cents=(pl.col("sales_value").sum() * 100).round().cast(pl.Int64),
        saved_cents=(pl.col("coupon_disc").sum() * 100).round().cast(pl.Int64),
    ).select(pl.col("household_id").alias("entity_id"), "at", "category", "amount_cents", "saved_cents",
             event_type=pl.lit("purchase"), delay_s=pl.lit(HOUR_S))  # fmt: skip
    events = pl.concat([sent, taken, bought], how="diagonal_relaxed").sort("at", "event_type", "entity_id", "category")
    at_us = events["at"].dt.epoch("us").to_numpy()
    known_us = at_us + events["delay_s"].cast(pl.Int64).to_numpy() * US_PER_S
    table = events.drop("at", "delay_s").to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = {name: _plain(table[name]) for name in table.column_names}
    columns["discount_percent"] = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
    columns["event_id"] = pa.array([f"e{number}" for number in range(table.num_rows)])
    columns["region"] = pa.repeat("global", table.num_rows)
    columns |= {"event_time": pa.array(at_us).cast(TIME), "ingest_time": pa.array(known_us).cast(TIME)}
    catalog, _ = declarations_of("audience")
    append_events(workspace, catalog, "user", pa.table(columns).sort_by("ingest_time"), source="complete journey")
    people = tables["demographics"]
    since = pa.repeat(pa.scalar(int(at_us.min()) - DAY_S * US_PER_S, pa.int64()), people.height).cast(TIME)
    profile = {name: people[name].cast(pl.String).to_arrow().cast(pa.string()) for name in ("age", "income", "household_size")}
    ids = people["household_id"].to_arrow().cast(pa.string())
    rows = pa.table({"entity_id": ids, "valid_from": since, "created_time": since, **profile})
    append_profiles(workspace, catalog, "household", rows, source="complete journey")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string() if pa.types.is_large_string(column.type) else pa.int64())


def judge(workspace: Workspace, folder: Path, seed: int) -> dict[str, Any]:
    """One training run on a time split, and its evaluation."""
    folder.mkdir()
    counts = build_training_rows(workspace, "audience", 0, folder / "rows.parquet")
    fit_graph(folder / "rows.parquet", *declarations_of("audience"), folder / "graph")
    train(load_spec("audience"), folder / "graph" / "features.parquet", folder / "network", seed=seed)
    evaluate(
        load_spec("audience"), folder / "graph" / "features.parquet", folder / "network", folder / "evaluation.json", seed=seed
    )
    return {**json.loads((folder / "evaluation.json").read_text()), "counts": counts}


def leave_out(folder: Path, offer: str, scratch: Path) -> tuple[int, int, float, float, float] | None:
    """Rows, positives, AUC and interval on test rows of one campaign type, by a model whose training saw none of that type."""
    rows = pq.read_table(folder / "rows.parquet")
    finished = pq.read_table(folder / "graph" / "features.parquet")
    mine = np.array(rows["offer"].to_pylist()) == offer
    test = np.array(rows["split"].to_pylist()) == "test"
    scratch.mkdir()
    pq.write_table(finished.filter(pa.array(~mine | test)), scratch / "features.parquet")
    spec = replace(load_spec("audience"), refit=False)
    train(spec, scratch / "features.parquet", scratch / "network", seed=0)
    pq.write_table(finished.filter(pa.array(mine & test)), scratch / "judged.parquet")
    chosen = read_frame(scratch / "judged.parquet")
    if len(np.unique(chosen.label)) < 2:
        return None
    network = keras.models.load_model(scratch / "network" / EVALUATED_FILE)
    entity = np.unique(np.array(chosen.entity_ids.to_pylist()), return_inverse=True)[1]
    weights = bootstrap.draw_weights(entity, 500, seed=0)
    figure = bootstrap.interval_of(bootstrap.auc(chosen.label, predict(network, chosen.transformed), weights))
    return len(chosen), int(chosen.label.sum()), figure["value"], figure["low"], figure["high"]


def _show(figure: dict[str, float], form: str) -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="plumb-journey-") as folder:
        root = Path(folder)
        workspace = Workspace(root)
        import_journey(asked.folder, workspace)
        for seed in SEEDS:
            found = judge(workspace, root / f"run-{seed}", seed)
            out = sys.stdout.write
            out(f"seed {seed}: {found['rows']} test rows, {found['positives']} taken up; trained on "
                f"{found['counts']['rows_train']}, held out {found['counts']['rows_validation']}\n")  # fmt: skip
            for name, figures in found["candidates"].items():
                gain = found["gains"].get(name, {}).get("auc")
                beside = f"   two towers better by {_show(gain, '+.3f')}" if gain else ""
                error = figures["calibration_error"]["value"]
                out(f"  {name:<11} AUC {_show(figures['auc'], '.3f')}   calibration error {error:.3f}{beside}\n")
        for offer in ("Type A", "Type B", "Type C"):
            figure = leave_out(root / "run-0", offer, root / offer)
            line = "too few of both labels"
            if figure is not None:
                line = f"{figure[0]} rows, {figure[1]} taken up: AUC {figure[2]:.3f} [{figure[3]:.3f}, {figure[4]:.3f}]"
            out(f"  {offer} left out of training: {line}\n")


if __name__ == "__main__":
    main()
