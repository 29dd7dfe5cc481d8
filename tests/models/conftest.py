"""Finished rows with a known law, written as fitting a graph writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.layout import DAY_S, US_PER_S
from features.rows import TIME
from models.cutoffs import COLD, EMBARGO, TEST, TRAIN, VALIDATION, hold_out

GROUPS = ["orders", "orders", "spend", "spend", "noise", "noise"]
FINISHED_NAMES = ["since_last_order_s", "orders_count_lifetime"]
WriteFeatures = Callable[..., Path]


@pytest.fixture
def write_features(tmp_path: Path) -> WriteFeatures:
    """Writes a features file: the logit is -0.5 + 1.2 x0 - 0.8 x1 + 0.6 x0 x1, recency knows x0 through noise."""

    def write(entities: int = 1_500, *, shuffled: bool = False, seed: int = 3) -> Path:
        rng = np.random.default_rng(seed)
        splits = [TRAIN, TRAIN, EMBARGO, TEST, COLD]
        ids = np.tile([f"c{number}" for number in range(entities)], len(splits))
        held = hold_out(pa.array(ids), 0.2)
        split = np.repeat(splits, entities)
        split = np.where((split == TRAIN) & held, VALIDATION, split)
        inputs = rng.standard_normal((len(ids), 6))
        cold = split == COLD
        logit = -0.5 + 1.2 * inputs[:, 0] - 0.8 * inputs[:, 1] + 0.6 * inputs[:, 0] * inputs[:, 1]
        label = (rng.random(len(ids)) < 1 / (1 + np.exp(-logit))).astype(np.int8)
        label = rng.permutation(label) if shuffled else label
        label[cold] = label[split == TEST]  # copies of the test rows, seen without their state
        inputs[cold] = 0
        recency = np.exp(10 + inputs[:, 0] + rng.standard_normal(len(ids)))
        finished = np.stack([np.where(rng.random(len(ids)) < 0.1, 0, recency), rng.integers(1, 9, len(ids))], axis=1)
        finished[cold] = 0
        now = np.repeat([0, 15, 60, 120, 120], entities) * DAY_S * US_PER_S
        # As labelled by absence: a row of label 0 saw its outcome 10 days later, and that was known after another.
        known = {f"outcome{part}_time": pa.array(now + days * DAY_S * US_PER_S, TIME, mask=label == 1)
                 for part, days in (("", 10), ("_known", 11))}  # fmt: skip
        day_us = DAY_S * US_PER_S
        drawn = now < 120 * day_us  # before the test, whose rows are labelled after one day of delay
        earlier = {f"earlier_{name}": pc.if_else(pa.array(drawn), column, None) for name, column in known.items()}
        known["observed_until"] = pa.array(now + 90 * day_us, TIME)
        earlier["earlier_observed_until"] = pa.array(np.minimum(now + 90 * day_us, 119 * day_us), TIME, mask=~drawn)
        known["closed_time"] = earlier["earlier_closed_time"] = pa.nulls(len(ids), TIME)
        table = pa.table(
            {"entity_id": pa.array(ids.tolist()), "label": pa.array(label), "matured": pa.array(np.ones(len(ids), bool)),
             "split": pa.array(split.tolist()), "now": pa.array(now).cast(TIME), **known, **earlier,
             "finished": lists(finished), "transformed": lists(inputs)}
        )  # fmt: skip
        metadata = {"finished_names": json.dumps(FINISHED_NAMES), "transformed_groups": json.dumps(GROUPS)}
        path = tmp_path / f"features_{entities}_{shuffled}_{seed}.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), path)
        return path

    return write


def lists(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).reshape(-1)), values.shape[1])
