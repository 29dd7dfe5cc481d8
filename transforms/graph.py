"""The one graph: from state bytes, fields and ``now`` to the features that a model sees.

This is the only place in Plumbline that computes a feature. Batch, stream, serving and audits run this code, as a
tf.Transform ``preprocessing_fn`` when a model is trained and as part of a SavedModel everywhere else.

Rows are padded to a multiple of 16 before any float is computed: TensorFlow's CPU kernels for ``log`` differ by one
ulp between their vector and scalar paths, and padding keeps every row on the vector path whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import tensorflow as tf
import tensorflow_transform as tft

from features import layout
from features.declarations import Field, Ratio, Shrinkage
from features.zones import UTC
from transforms.local_clock import read_clock
from transforms.plan import GraphPlan, ReductionPlan, WindowPlan

Tensors = dict[str, tf.Tensor]

ROW_MULTIPLE: Final = 16
QUANTILES: Final = 10
MAX_DEVIATIONS: Final = 8.0
_MAX_RECORDS_BITS: Final = 24
_NOW_COLUMNS: Final = 8

_SEGMENT: Final[dict[str, Callable[..., tf.Tensor]]] = {
    "sum": tf.math.unsorted_segment_sum,
    "max": tf.math.unsorted_segment_max,
    "min": tf.math.unsorted_segment_min,
}
_COMBINE: Final[dict[str, Callable[..., tf.Tensor]]] = {"sum": tf.add, "max": tf.maximum, "min": tf.minimum}
_EMPTY: Final = {"sum": 0, "max": tf.int64.min, "min": tf.int64.max}


def input_specs(plan: GraphPlan) -> dict[str, tf.TensorSpec]:
    """Named inputs of the graph, all of shape (n,): state bytes, ``now`` in microseconds, one for each field."""
    specs = {"state": tf.TensorSpec([None], tf.string, name="state"), "now": tf.TensorSpec([None], tf.int64, name="now")}
    for entry in plan.fields:
        specs[entry.name] = tf.TensorSpec([None], tf.string if entry.dtype == "string" else tf.int64, name=entry.name)
    return specs


def finish(plan: GraphPlan, inputs: Tensors) -> Tensors:
    """The window graph: finished, unscaled features.

    Args:
        plan: of the view.
        inputs: as ``input_specs`` says. Tiles of signals that the plan does not know are passed over.
    Returns:
        ``integers`` int64 (n, I), ``finished`` float32 (n, F) with missing values 0, ``logs`` float32 (n, S) the signed
        logarithms of ``logged_names``, ``missing`` float32 (n, M), ``local_hour`` int64 (n,) where the view has one.
    """
    rows = tf.size(inputs["now"], out_type=tf.int64)
    padding = -rows % ROW_MULTIPLE
    padded = {name: tf.pad(tensor, [[0, padding]]) for name, tensor in inputs.items()}
    integers = finish_windows(plan.windows, padded["state"], padded["now"])
    columns, missing = _derive(plan, integers, padded)
    local_hour = _local_hour(plan, padded)
    scaled = tf.concat(columns, axis=1)
    readings = [] if local_hour is None else [tf.cast(local_hour, tf.float32)[:, None]]
    if plan.view.time_zone:
        zone = padded.get(plan.view.time_zone, tf.fill(tf.shape(padded["now"]), UTC))
        readings.append(read_clock(zone, padded["now"]))
    finished = tf.concat([scaled, *readings], axis=1) if readings else scaled
    outputs = {"integers": integers, "finished": finished, "logs": _signed_log(scaled)}
    if plan.optional_names:
        outputs["missing"] = tf.cast(tf.concat(missing, axis=1), tf.float32)
    if local_hour is not None:
        outputs["local_hour"] = local_hour
    return {name: tensor[:rows] for name, tensor in outputs.items()}


def finish_windows(plan: WindowPlan, state: tf.Tensor, now_us: tf.Tensor) -> tf.Tensor:
    """Finished integers int64 (n, I) of state bytes (n,) at ``now_us`` int64 (n,); an empty window is 0."""
    key, value, row = _decode(state)
    series = tf.bitwise.right_shift(key, layout.SERIES_SHIFT)
    dense = tf.gather(tf.constant(plan.dense_series), tf.minimum(series, len(plan.dense_series) - 1))
    age = _now_bucket(now_us, row, series) - tf.bitwise.bitwise_and(key, layout.BUCKET_MASK)
    entry = dense * plan.stride + tf.clip_by_value(age + 1, 0, plan.stride - 1)
    by = tf.bitwise.bitwise_and(tf.bitwise.right_shift(key, layout.BY_SHIFT), layout.MAX_BY) if plan.has_by else None
    rows = tf.size(now_us, out_type=tf.int64)
    cells = [_reduce(reduction, entry, by, row, value, rows) for reduction in plan.reductions]
    return _pick_columns(tf.concat(cells, axis=1), plan.column.tolist())


def _pick_columns(table: tf.Tensor, columns: list[int]) -> tf.Tensor:
    """Columns of a (n, C) tensor, by number; rows of its transpose are copied whole, at half the cost of single elements."""
    first, end = (columns[0], columns[-1] + 1) if columns else (0, 0)
    if columns == list(range(first, end)):
        return table[:, first:end]
    return tf.transpose(tf.gather(tf.transpose(table), columns))


def make_preprocessing_fn(plan: GraphPlan) -> Callable[[Tensors], Tensors]:
    """The tf.Transform ``preprocessing_fn`` of a view: the window graph, then scaling learned from training rows.

    Its outputs are ``integers`` and ``finished`` as the window graph gives them, and ``transformed`` float32 (n, T).
    """

    def preprocessing_fn(inputs: Tensors) -> Tensors:
        outputs = finish(plan, inputs)
        ranks = {entry.name: _vocabulary_rank(entry, inputs[entry.name]) for entry in plan.vocabulary_fields}
        logs = _with_shrunken_ratios(plan, outputs, ranks)
        if plan.counted_names:
            logs = _pick_columns(logs, [plan.logged_names.index(name) for name in plan.scaled_names])
        blocks = [_scale(logs)]
        if plan.optional_names:
            blocks.append(outputs["missing"])
        if plan.view.bucketed:
            blocks.append(_quantile_ranks(plan, outputs["finished"]))
        if plan.view.utc_offset:
            blocks.append(tf.one_hot(outputs["local_hour"], 24))
        blocks += [tf.one_hot(ranks[entry.name], entry.vocabulary_size + 1) for entry in plan.vocabulary_fields]
        as_they_are = [plan.finished_names.index(name) for name in (*plan.counted_names, *plan.clock_names)]
        if as_they_are:
            blocks.append(_pick_columns(outputs["finished"], as_they_are))
        transformed = tf.concat(blocks, axis=1)
        return {"integers": outputs["integers"], "finished": outputs["finished"], "transformed": transformed}

    return preprocessing_fn


def _decode(state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Keys, values and row numbers of all records of all states; headers carry signal id 0, which no plan knows."""
    records = tf.reshape(tf.io.decode_raw(tf.strings.reduce_join(state), tf.int64), [-1, 2])
    count = tf.cast(tf.strings.length(state), tf.int64) // layout.RECORD_BYTES
    start = tf.bitwise.left_shift(tf.range(tf.size(count, out_type=tf.int64)), _MAX_RECORDS_BITS)
    # One range for each row, starting at row << 24: the high bits are the row number of each record.
    ranges = tf.raw_ops.RaggedRange(starts=start, limits=start + count, deltas=tf.ones_like(start), Tsplits=tf.int64)
    return records[:, 0], records[:, 1], tf.bitwise.right_shift(ranges.rt_dense_values, _MAX_RECORDS_BITS)


def _now_bucket(now_us: tf.Tensor, row: tf.Tensor, series: tf.Tensor) -> tf.Tensor:
    """For each record the bucket that ``now`` falls into at the record's resolution; 0 for lifetimes."""
    buckets = [
        tf.math.floordiv(now_us, resolution.period_s * layout.US_PER_S) if resolution.period_s else tf.zeros_like(now_us)
        for resolution in layout.RESOLUTIONS
    ]
    buckets += [tf.zeros_like(now_us)] * (_NOW_COLUMNS - len(buckets))
    resolution = tf.bitwise.bitwise_and(series, _NOW_COLUMNS - 1)
    return tf.gather(tf.reshape(tf.stack(buckets, axis=1), [-1]), row * _NOW_COLUMNS + resolution)


def _reduce(
    plan: ReductionPlan, entry: tf.Tensor, by: tf.Tensor | None, row: tf.Tensor, value: tf.Tensor, rows: tf.Tensor
) -> tf.Tensor:
    """Windows of one kind of reduction, (n, rings * width): ring by ring, each added to those inside it."""
    size = plan.rings * plan.width
    cell = tf.gather(tf.constant(plan.cell), entry) + row * size
    rings = _SEGMENT[plan.name](value, cell if by is None else cell + by, rows * size)
    rings = tf.unstack(tf.reshape(rings, [-1, plan.rings, plan.width]), axis=1)
    for inner in range(1, plan.rings):
        rings[inner] = _COMBINE[plan.name](rings[inner], rings[inner - 1])
    windows = tf.concat(rings, axis=1)
    return windows if plan.name == "sum" else tf.where(tf.equal(windows, _EMPTY[plan.name]), tf.zeros_like(windows), windows)


def _derive(plan: GraphPlan, integers: tf.Tensor, inputs: Tensors) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Float columns in the order of ``logged_names`` and the masks of the optional ones, each (n, 1) or wider."""
    position = {name: number for number, name in enumerate(plan.integer_names)}
    numbers = [position[name] for name in plan.number_names]
    columns = [tf.cast(_pick_columns(integers, numbers), tf.float32)]
    finished = {name: columns[0][:, number : number + 1] for number, name in enumerate(plan.number_names)}
    missing: dict[str, tf.Tensor] = {name: tf.zeros_like(finished[name], tf.bool) for name in finished}
    for elapsed in plan.view.elapsed:
        since = integers[:, position[elapsed.since], None]
        until = integers[:, position[elapsed.until], None] if elapsed.until else inputs["now"][:, None]
        absent = tf.logical_or(tf.equal(since, 0), tf.equal(until, 0))
        seconds = tf.cast(tf.math.floordiv(until - since, layout.US_PER_S), tf.float32)
        finished[elapsed.name] = tf.where(absent, tf.zeros_like(seconds), seconds)
        missing[elapsed.name] = absent
    for ratio in plan.view.ratios:
        numerator, denominator = finished[ratio.numerator], finished[ratio.denominator]
        absent = tf.equal(denominator, 0) | missing[ratio.numerator] | missing[ratio.denominator]
        finished[ratio.name] = tf.math.divide_no_nan(numerator, denominator) * tf.cast(~absent, tf.float32)
        missing[ratio.name] = absent
    columns += [finished[name] for name in plan.optional_names]
    columns += [tf.cast(inputs[name], tf.float32)[:, None] for name in plan.field_number_names]
    return columns, [missing[name] for name in plan.optional_names]


def _local_hour(plan: GraphPlan, inputs: Tensors) -> tf.Tensor | None:
    if not plan.view.utc_offset:
        return None
    local_s = inputs["now"] // layout.US_PER_S + inputs[plan.view.utc_offset] * layout.MINUTE_S
    return tf.math.floormod(tf.math.floordiv(local_s, layout.HOUR_S), 24)


def _signed_log(columns: tf.Tensor) -> tf.Tensor:
    """sign(x) log(1 + |x|) of rows padded to ``ROW_MULTIPLE``."""
    return tf.sign(columns) * tf.math.log1p(tf.abs(columns))


def _vocabulary_rank(entry: Field, values: tf.Tensor) -> tf.Tensor:
    """int64 (n,) rank of a string among the training values, the most frequent first; ``vocabulary_size`` if unseen."""
    rank = tft.compute_and_apply_vocabulary(values, top_k=entry.vocabulary_size, num_oov_buckets=1, vocab_filename=entry.name)
    # Out of vocabulary is one past the last rank; put it into the last column even if fewer values were seen.
    unseen = rank >= tf.cast(tft.experimental.get_vocabulary_size_by_name(entry.name), tf.int64)
    return tf.where(unseen, tf.cast(entry.vocabulary_size, tf.int64), rank)


def _with_shrunken_ratios(plan: GraphPlan, outputs: Tensors, ranks: Tensors) -> tf.Tensor:
    """``logs`` with every shrunken ratio in the place of its raw one."""
    shrunken = [_shrink(plan, ratio, shrink, outputs, ranks) for ratio, shrink in plan.shrunken_ratios]
    if not shrunken:
        return outputs["logs"]
    columns = tf.stack(shrunken, axis=1)
    rows = tf.shape(columns)[0]
    logs = _signed_log(tf.pad(columns, [[0, -rows % ROW_MULTIPLE], [0, 0]]))[:rows]
    place = list(range(len(plan.logged_names)))
    for number, (ratio, _) in enumerate(plan.shrunken_ratios):
        place[plan.logged_names.index(ratio.name)] = len(plan.logged_names) + number
    return _pick_columns(tf.concat([outputs["logs"], logs], axis=1), place)


def _shrink(plan: GraphPlan, ratio: Ratio, shrink: Shrinkage, outputs: Tensors, ranks: Tensors) -> tf.Tensor:
    """float32 (n,): (numerator + strength * prior) / (denominator + strength), the prior being that of the row's segment.

    Priors are empirical Bayes by moments of pooled counts: Robbins, The empirical Bayes approach to statistical decision
    problems, 1964. A row without the ratio brings no evidence, neither to itself nor to its segment.
    """
    absent = outputs["missing"][:, plan.optional_names.index(ratio.name)] > 0
    parts = [outputs["finished"][:, plan.finished_names.index(name)] for name in (ratio.numerator, ratio.denominator)]
    numerator, denominator = (tf.where(absent, tf.zeros_like(part), part) for part in parts)
    sizes = {entry.name: entry.vocabulary_size + 1 for entry in plan.vocabulary_fields}
    segment = ranks[shrink.by] if shrink.by else tf.zeros_like(numerator, tf.int64)
    member = tf.one_hot(segment, sizes.get(shrink.by, 1), dtype=tf.float64)
    sums = [
        tft.sum(member * tf.cast(part, tf.float64)[:, None], reduce_instance_dims=False) for part in (numerator, denominator)
    ]
    overall = tf.math.divide_no_nan(tf.reduce_sum(sums[0]), tf.reduce_sum(sums[1]))
    # By the reciprocal, for the reason that ``_scale`` gives.
    prior = (sums[0] + shrink.strength * overall) * tf.math.reciprocal(sums[1] + shrink.strength)
    pseudo_numerator = tf.gather(tf.cast(shrink.strength * prior, tf.float32), segment)
    return (numerator + pseudo_numerator) / (denominator + shrink.strength)


def _scale(columns: tf.Tensor) -> tf.Tensor:
    """Each column less its training mean, over its training deviation, within ``MAX_DEVIATIONS``; a constant one becomes 0.

    A column that hardly varied in training would otherwise outweigh all others once it does.
    Multiplies by the reciprocal instead of dividing: TensorFlow's optimiser rewrites a division by a constant in some
    loaders and not in others, and the last bits would differ.
    """
    mean = tft.mean(columns, reduce_instance_dims=False)
    variance = tft.var(columns, reduce_instance_dims=False)
    scaled = (columns - mean) * tf.where(variance > 0, tf.math.reciprocal(tf.sqrt(variance)), tf.ones_like(variance))
    return tf.clip_by_value(scaled, -MAX_DEVIATIONS, MAX_DEVIATIONS)


def _quantile_ranks(plan: GraphPlan, finished: tf.Tensor) -> tf.Tensor:
    """Each bucketed feature's quantile among training rows, from 0 to 1."""
    chosen = [plan.finished_names.index(name) for name in plan.view.bucketed]
    rank = tft.bucketize(tf.gather(finished, chosen, axis=1), QUANTILES, elementwise=True)
    return tf.cast(rank, tf.float32) * (1 / (QUANTILES - 1))
