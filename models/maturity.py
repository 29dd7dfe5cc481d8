"""How far labels had matured when a run's rows were drawn, and how long outcomes take to become known."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.layout import DAY_S, US_PER_S
from models.evaluation import COLD, Evaluation

COLUMNS: Final = ("now", "split", "matured", "outcome_time", "outcome_known_time")
MOST_PERIODS: Final = 60
DELAY_STEPS: Final = 60
DAY_US: Final = DAY_S * US_PER_S


def measure_maturity(features_path: Path, horizon_s: int) -> Evaluation:
    """Label maturity of a features file, cold copies left out.

    Returns:
        ``rows``, ``matured``, ``censored``; ``periods``: by date of the rows' ``now``, ascending, ``from`` (a date), ``rows``,
        ``matured``, ``censored`` and ``outcomes`` (known so far), some days together where there are more than 60;
        ``delays``: of matured rows that have an outcome, which share had ``happened`` and was ``known`` within ``days``
        after the row; the horizon bounds the first, the second may take longer.
    """
    rows = pl.DataFrame(pq.read_table(features_path, columns=list(COLUMNS))).filter(pl.col("split") != COLD)
    now_us = rows["now"].dt.epoch("us")
    matured = rows["matured"].to_numpy()
    waited = {
        name: ((rows[column].dt.epoch("us") - now_us) / DAY_US).filter(rows["matured"]).drop_nulls().to_numpy()
        for name, column in (("happened", "outcome_time"), ("known", "outcome_known_time"))
    }
    longest = max([horizon_s / DAY_S, *(float(days.max()) for days in waited.values() if len(days))])
    days = np.linspace(0, longest, DELAY_STEPS + 1)
    shares = {name: _share_within(values, days) for name, values in waited.items()}
    return {
        "rows": len(rows),
        "matured": int(matured.sum()),
        "censored": int((~matured).sum()),
        "periods": _count_periods(rows),
        "delays": {"outcomes": len(waited["known"]), "days": [round(float(day), 3) for day in days], **shares},
    }


def _count_periods(rows: pl.DataFrame) -> list[Evaluation]:
    day = rows["now"].dt.epoch("d")
    days = day.to_numpy()
    first, last = int(days.min()), int(days.max())
    width = 1 if day.n_unique() <= MOST_PERIODS else -(-(last - first + 1) // MOST_PERIODS)
    counted = rows.with_columns(start=first + (day - first) // width * width).group_by("start").agg(
        rows=pl.len(), matured=pl.col("matured").sum(), outcomes=pl.col("outcome_time").is_not_null().sum(),
    )  # fmt: skip
    return [
        {"from": str(np.datetime64(int(entry["start"]), "D")), "rows": entry["rows"], "matured": entry["matured"],
         "censored": entry["rows"] - entry["matured"], "outcomes": entry["outcomes"]}
        for entry in counted.sort("start").to_dicts()
    ]  # fmt: skip


def _share_within(waited: np.ndarray, days: np.ndarray) -> list[float]:
    found = np.searchsorted(np.sort(waited), days, side="right") / max(len(waited), 1)
    return [round(float(share), 4) for share in found]
