"""Predictions a second of graph and network in one SavedModel, on one core.

The peer masks every tile against every window, the obvious way to write such a graph, with the same network behind it;
the floor is the network alone on features that are ready. Peer and graph must give the same integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import Timing, measure
from features import layout
from features.codec import encode_states
from features.declarations import Catalog, EventType, Signal, View
from features.layout import DAY_S, HOUR_S, MINUTE_S
from features.tiles import Tiles
from transforms.graph import finish, input_specs
from transforms.plan import GraphPlan, plan_graph

BATCHES: Final = (1, 64, 256, 1_024)
TILES: Final = (20, 60, 200)
WINDOWS_S: Final = (10 * MINUTE_S, HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S)
SIGNALS: Final = 24
NOW_S: Final = 1_736_159_430
HIDDEN: Final = (128, 64)

Row = tuple[str, str, Timing, Timing, Timing]


def make_plan() -> GraphPlan:
    """24 counters over five windows each: 120 windows."""
    signals = tuple(Signal(number + 1, f"s{number}", "user", ("hit",), ("count",), WINDOWS_S) for number in range(SIGNALS))
    view = View("bench", 1, "user", tuple(signal.name for signal in signals))
    return plan_graph(Catalog("bench", (), (EventType("hit", "user"),), signals, views=(view,)), view)


def make_states(users: int, tiles: int, seed: int) -> np.ndarray:
    """State bytes of users with about this many tiles each, spread over all series and ages."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), tiles)
    resolution = rng.choice([0, 2, 3], len(owner))
    period_s = np.array([MINUTE_S, 0, HOUR_S, DAY_S])[resolution]
    reach = np.array([60, 0, 168, 30])[resolution]
    bucket = NOW_S // period_s - rng.integers(0, reach)
    series = (rng.integers(1, SIGNALS + 1, len(owner)) << 6) | resolution
    key = (series << layout.SERIES_SHIFT) | bucket
    order = np.lexsort((key, owner))
    owner, key = owner[order], key[order]
    first = np.concatenate(([True], (owner[1:] != owner[:-1]) | (key[1:] != key[:-1])))
    sorted_tiles = Tiles(owner[first], key[first], rng.integers(1, 9, int(first.sum())))
    zeros = np.zeros(users, np.int64)
    return np.array(encode_states(sorted_tiles, zeros, zeros).to_pylist(), dtype=object)


def mask_every_window(plan: GraphPlan, state: tf.Tensor, now_us: tf.Tensor) -> tf.Tensor:
    """The peer: (tiles, windows) masks, one segment sum."""
    records = tf.reshape(tf.io.decode_raw(tf.strings.reduce_join(state), tf.int64), [-1, 2])
    rows = tf.repeat(tf.range(tf.size(state)), tf.strings.length(state) // layout.RECORD_BYTES)
    key, value = records[:, 0:1], records[:, 1:2]
    series, period_us, width = [], [], []
    for feature in plan.windows.features:
        resolution = layout.resolution_of(feature.window_s)
        series.append(layout.pack_series(feature.signal.id, feature.operation, resolution))
        period_us.append(resolution.period_s * layout.US_PER_S)
        width.append(feature.window_s // resolution.period_s)
    newest = tf.gather(now_us, rows)[:, None] // tf.constant(period_us, tf.int64)
    bucket = tf.bitwise.bitwise_and(key, tf.constant(layout.BUCKET_MASK, tf.int64))
    same = tf.equal(tf.bitwise.right_shift(key, tf.constant(layout.SERIES_SHIFT, tf.int64)), tf.constant(series, tf.int64))
    inside = same & (bucket <= newest) & (bucket > newest - tf.constant(width, tf.int64))
    return tf.math.unsorted_segment_sum(tf.where(inside, value, tf.zeros_like(value)), rows, tf.size(state))


class _Contenders(tf.Module):  # type: ignore[misc]
    """Our graph, the peer and the floor behind the same network, saved and served like a model."""

    def __init__(self, plan: GraphPlan) -> None:
        super().__init__()
        width = len(plan.windows.features)
        layers = [keras.layers.Dense(units, activation="relu") for units in HIDDEN]
        self.network = keras.Sequential([keras.Input((width,)), *layers, keras.layers.Dense(1, activation="sigmoid")])
        self.tracked = [variable.value for variable in self.network.variables]
        specs = input_specs(plan)
        self.ours = tf.function(lambda state, now: self._ours(plan, state, now), input_signature=[specs["state"], specs["now"]])
        self.peer = tf.function(lambda state, now: self._peer(plan, state, now), input_signature=[specs["state"], specs["now"]])
        self.floor = tf.function(self._score, input_signature=[tf.TensorSpec([None, width], tf.float32, name="logs")])

    def _ours(self, plan: GraphPlan, state: tf.Tensor, now: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = finish(plan, {"state": state, "now": now})
        return {"integers": outputs["integers"], **self._score(outputs["logs"])}

    def _peer(self, plan: GraphPlan, state: tf.Tensor, now: tf.Tensor) -> dict[str, tf.Tensor]:
        integers = mask_every_window(plan, state, now)
        return {"integers": integers, **self._score(tf.math.log1p(tf.cast(integers, tf.float32)))}

    def _score(self, logs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"score": self.network(logs, training=False)}


def run() -> Iterator[Row]:
    """Timings of ours, peer and floor for every size; raises if ours and the peer differ in any integer."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    plan = make_plan()
    with TemporaryDirectory() as folder:
        contenders = _Contenders(plan)
        signatures = {"ours": contenders.ours, "peer": contenders.peer, "floor": contenders.floor}
        tf.saved_model.save(contenders, str(Path(folder) / "model"), signatures=signatures)
        loaded = tf.saved_model.load(str(Path(folder) / "model"))
        ours, peer, floor = (loaded.signatures[name] for name in ("ours", "peer", "floor"))
        for tiles in TILES:
            for batch in BATCHES:
                inputs = {
                    "state": tf.constant(make_states(batch, tiles, seed=tiles)),
                    "now": tf.fill([batch], tf.constant(NOW_S * layout.US_PER_S, tf.int64)),
                }
                expected, got = peer(**inputs)["integers"].numpy(), ours(**inputs)["integers"].numpy()
                if not np.array_equal(expected, got):
                    raise AssertionError(
                        f"{(expected != got).sum()} of {got.size} integers differ from the peer at {tiles} tiles, batch {batch}"
                    )
                logs = tf.zeros([batch, len(plan.windows.features)])
                timings = (
                    measure(lambda i=inputs: ours(**i)),
                    measure(lambda i=inputs: peer(**i)),
                    measure(lambda x=logs: floor(logs=x)),
                )
                yield (str(tiles), str(batch), *timings)
