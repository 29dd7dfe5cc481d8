"""Labels of served predictions are read in this environment too."""

from __future__ import annotations

import pyarrow as pa

from features import served_labels
from features.rows import SERVED_LABEL, TIME
from monitoring.rollout.events import hash_entity
from monitoring.rollout.labels import Share, read_matured


def test_a_label_comes_back_at_the_share_that_stood_when_it_was_scored(tmp_path):
    at = pa.array([150]).cast(TIME)
    row = {"request_id": ["r"], "entity_id": ["a"], "model": ["churn"], "model_version": [2], "revision": ["canary-1"],
           "score": [0.5], "label": [1]}  # fmt: skip
    columns = [at if field.type == TIME else pa.array(row[field.name], field.type) for field in SERVED_LABEL]
    with served_labels.writing(tmp_path) as progress:
        assert progress == {}
        served_labels.append(tmp_path, pa.table(columns, schema=SERVED_LABEL), {"s": served_labels.Seen(1, 150, 200)})
    assert served_labels.read_progress(tmp_path) == {"s": (1, 150, 200)}
    found = read_matured(tmp_path, {"canary-1": 1}, [Share(10, 100, 200)])
    assert (found.label_entity.tolist(), found.label.tolist()) == ([hash_entity("a")], [True])
    assert found.label_percent.tolist() == [10]
