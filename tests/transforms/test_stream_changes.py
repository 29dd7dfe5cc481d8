"""What a subscriber gets is what a request would be answered with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
import tensorflow as tf
from e2e.killing import CATALOG, LATER_US, PARTITIONS, VIEW, CountCommits, append_as_they_came, never
from parity.adversarial import draw_events, to_table

from features.event_log.compaction import BatchHistory, open_live_log
from features.online.addresses import ViewVersion, open_store
from features.partitions import partition_of
from features.rows import event_schema
from features.workspace import Workspace
from inference.lookup import look_up
from inference.requests import ScoreRequest
from transforms.export import export_window_graph
from transforms.stream import StreamJob, run_stream
from transforms.stream_changes import Subscriber

OUTPUTS = ("integers", "finished")


@dataclass(frozen=True)
class KeepInFiles:
    """A subscriber that writes what it gets to one file a delivery."""

    folder: Path

    def __call__(self, changed: pa.Table) -> None:
        path = self.folder / f"{len(list(self.folder.iterdir())):04d}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, changed.schema) as writer:
            writer.write_table(changed)


def fixed_now() -> int:
    return LATER_US


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A stream's workspace and all that its subscriber got, in order."""
    root = tmp_path_factory.mktemp("subscribed")
    workspace, model, kept = Workspace(root), root / "window_graph", root / "kept"
    kept.mkdir()
    export_window_graph(CATALOG, VIEW, model)
    events = to_table(draw_events(30, 8, partitions=len(PARTITIONS)), event_schema(CATALOG.attributes_of("user")))
    version = ViewVersion.of(CATALOG, VIEW)
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_as_they_came(log, events, pause_s=0)
    with open_store(str(root / "store"), version, create=True) as store:
        name = "user-3"
        shard = int(partition_of([name], len(PARTITIONS))[0])
        profile = orjson.dumps({"plan": "pro", "utc_offset_minutes": 120})
        store.commit(shard, {}, {name: profile}, replace(store.watermark(shard)), expected_previous=-1)
    run_stream(
        StreamJob(
            catalog=CATALOG, view=VIEW, open_log=partial(open_live_log, workspace, CATALOG, "user"),
            open_store=partial(open_store, str(root / "store"), version), history=BatchHistory(root, CATALOG, "user"),
            now_us=fixed_now, stop_requested=never, report=CountCommits(root / "commits"), micro_batch=10**6,
            subscriber=Subscriber(model, KeepInFiles(kept)),
        ),
        PARTITIONS,
        until_caught_up=True,
    )  # fmt: skip
    parts = [pa.ipc.open_file(str(path)).read_all() for path in sorted(kept.iterdir())]
    return root, pa.concat_tables(parts)


def test_a_subscriber_gets_every_changed_entity_finished_to_the_bits_of_a_request(delivered: tuple[Path, pa.Table]) -> None:
    root, got = delivered
    names = got["entity_id"].to_pylist()
    assert sorted(names) == sorted({f"user-{number}" for number in range(30) if number % 15 != 14})
    defaults = {field.name: [field.default] * len(names) for field in VIEW.request}
    request = ScoreRequest(entity_ids=names, now_us=[LATER_US] * len(names), fields=defaults, with_features=True)
    with open_store(str(root / "store"), ViewVersion.of(CATALOG, VIEW), readonly=True) as store:
        asked = look_up(store, request, CATALOG.profile_fields_of(VIEW), VIEW.freshness_sla_s)
    served = tf.saved_model.load(str(root / "window_graph")).signatures["serving_default"]
    dtypes = {name: spec.dtype for name, spec in served.structured_input_signature[1].items()}
    answer = served(**{name: tf.constant(asked.tensors[name], dtype) for name, dtype in dtypes.items()})
    for name in OUTPUTS:
        expected = answer[name].numpy()
        found = got[name].combine_chunks().flatten().to_numpy().reshape(expected.shape)
        assert found.dtype == expected.dtype
        assert np.array_equal(found.view(np.uint8), expected.view(np.uint8)), name
    assert np.count_nonzero(answer["integers"].numpy()) > 100
