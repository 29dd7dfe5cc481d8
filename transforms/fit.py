"""Fit the graph on training rows: a Beam job that analyses the train split once and finishes every row.

The runner is always named: Beam's default one depends on what the network offers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform import beam as tft_beam
from tfx_bsl.tfxio import tensor_representation_util
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from features.declarations import Catalog, View
from features.errors import explain
from features.rows import EARLIER_LABEL_FIELDS, LABEL_FIELDS, SLOT_FIELDS
from transforms.errors import GraphError
from transforms.export import load_finisher
from transforms.graph import make_preprocessing_fn
from transforms.plan import GraphPlan, plan_graph

DEFAULT_RUNNER: Final = "FnApiRunner"
BATCH_ROWS: Final = 4_096
KEPT_COLUMNS: Final = (
    "entity_id", "now", *(field.name for field in (*LABEL_FIELDS, *EARLIER_LABEL_FIELDS, *SLOT_FIELDS)), "split",
)  # fmt: skip
TRAIN: Final = "train"


def fit_graph(rows_path: Path, catalog: Catalog, view: View, out_dir: Path, *, runner: str = DEFAULT_RUNNER) -> None:
    """Analyse the train split of training rows and finish all of them.

    Args:
        rows_path: Parquet of ``rows.training_schema``.
        catalog, view: what the graph is declared by.
        out_dir: gets ``transform_fn/`` (SavedModel), ``graph.json`` (names, groups, hashes, the mean training row) and
            ``features.parquet`` (the kept columns, ``integers`` int64 [I], ``finished`` float32 [F], ``transformed``
            float32 [T]; the schema's metadata holds the names and groups of the last two as JSON); appears whole.
        runner: name of the Beam runner that analyses.

    Raises:
        GraphError: no row has the split ``train``.
    """
    rows = pq.read_table(rows_path)
    training = rows.filter(pc.equal(rows["split"], TRAIN))
    if not training.num_rows:
        raise GraphError(
            explain(
                "no training rows",
                which=str(rows_path),
                expected=f"rows with split {TRAIN!r}",
                got=f"{rows.num_rows} others",
                next_step="choose a later known_at, or import more history",
            )
        )
    plan = plan_graph(catalog, view)
    partial = out_dir.with_name(f"{out_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    analyse(training, plan, partial, runner=runner)
    reference = write_features(rows, plan, partial)
    record = {**describe_graph(catalog, plan, partial), "reference": reference}
    (partial / "graph.json").write_text(json.dumps(record, indent=2))
    shutil.rmtree(out_dir, ignore_errors=True)
    partial.rename(out_dir)


def analyse(training: pa.Table, plan: GraphPlan, out_dir: Path, *, runner: str) -> None:
    """Run tf.Transform's analysis over the rows and write ``transform_fn/`` and its metadata."""
    options = PipelineOptions(flags=[], runner=runner, save_main_session=False)
    config, schema = _input_config(plan)
    scratch = out_dir / "scratch"
    batches = scratch / "batches"
    batches.mkdir(parents=True)
    # Beam pickles what `Create` is given, so it gets file names and the workers read the rows.
    names = [_write_batch(batch, schema, batches / f"{number:05d}.arrow") for number, batch in enumerate(_batches(training))]
    with (
        beam.Pipeline(options=options) as pipeline,
        tft_beam.Context(temp_dir=str(scratch / "tft"), use_deep_copy_optimization=True),
    ):
        source = pipeline | "Files" >> beam.Create(names) | "Read" >> beam.FlatMap(_read_batch)
        transform_fn = (source, config) | "Analyse" >> tft_beam.AnalyzeDataset(make_preprocessing_fn(plan))
        _ = transform_fn | "Write" >> tft_beam.WriteTransformFn(str(out_dir))
    shutil.rmtree(scratch)


def describe_graph(catalog: Catalog, plan: GraphPlan, graph_dir: Path) -> dict[str, Any]:
    """What a reader of the graph's outputs needs: names in order, fields, and the hashes that identify it."""
    view = plan.view
    return {
        "catalog": catalog.name,
        "view": {"name": view.name, "version": view.version, "key": view.key},
        "view_hash": catalog.view_hash(view),
        "graph_hash": hash_graph(graph_dir),
        "freshness_sla_s": view.freshness_sla_s,
        "log_partitions": catalog.log_partitions,
        "integer_names": plan.integer_names,
        "finished_names": plan.finished_names,
        "transformed_names": plan.transformed_names,
        "finished_groups": plan.finished_groups,
        "transformed_groups": plan.transformed_groups,
        "counted_names": plan.counted_names,
        "profile_fields": [_describe_field(entry) for entry in catalog.profile_fields_of(view)],
        "request_fields": [_describe_field(entry) for entry in view.request],
        "joins": [asdict(join) for join in view.joins],
    }


def hash_graph(graph_dir: Path) -> str:
    """SHA-256 over the learned constants: vocabularies and the graph's node definitions, whatever the save's time was."""
    model = tf.saved_model.load(str(graph_dir / tft.TFTransformOutput.TRANSFORM_FN_DIR))
    digest = hashlib.sha256()
    for asset in sorted((graph_dir / tft.TFTransformOutput.TRANSFORM_FN_DIR / "assets").glob("*")):
        digest.update(asset.name.encode() + asset.read_bytes())
    for node in model.transform_fn.graph.as_graph_def().node:
        if node.op == "Const":
            digest.update(node.attr["value"].tensor.SerializeToString(deterministic=True))
        digest.update(node.op.encode())
    return digest.hexdigest()


def write_features(rows: pa.Table, plan: GraphPlan, graph_dir: Path) -> list[float]:
    """Finish every row with the fitted graph, as serving does, and write ``features.parquet``.

    Returns:
        (T,) the mean transformed row of the train split: what a row is explained against.
    """
    finisher = load_finisher(graph_dir / tft.TFTransformOutput.TRANSFORM_FN_DIR, plan)
    kept = [name for name in KEPT_COLUMNS if name in rows.column_names]
    widths = {
        "integers": len(plan.integer_names),
        "finished": len(plan.finished_names),
        "transformed": len(plan.transformed_names),
    }
    types = {"integers": pa.int64(), "finished": pa.float32(), "transformed": pa.float32()}
    schema = pa.schema(
        [*(rows.schema.field(name) for name in kept), *(pa.field(name, pa.list_(types[name], widths[name])) for name in widths)]
    )
    described = ("finished_names", "transformed_names", "finished_groups", "transformed_groups")
    schema = schema.with_metadata({name: json.dumps(getattr(plan, name)) for name in described})
    total, count = np.zeros(widths["transformed"]), 0
    with pq.ParquetWriter(graph_dir / "features.parquet", schema) as writer:
        for batch in _batches(rows):
            outputs = finisher(batch)
            training = pc.equal(batch["split"], TRAIN).to_numpy()
            total += outputs["transformed"][training].sum(axis=0, dtype=np.float64)
            count += int(training.sum())
            blocks = [pa.FixedSizeListArray.from_arrays(pa.array(outputs[name].reshape(-1)), widths[name]) for name in widths]
            writer.write_table(pa.table([*(batch[name] for name in kept), *blocks], schema=schema))
    mean: list[float] = (total / count).astype(np.float32).tolist()
    return mean


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, BATCH_ROWS):
        yield table.slice(start, BATCH_ROWS)


def _describe_field(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "dtype": entry.dtype, "default": entry.default}


def _input_config(plan: GraphPlan) -> tuple[TensorAdapterConfig, pa.Schema]:
    dtypes = {"state": tf.string, "now": tf.int64}
    dtypes |= {entry.name: tf.string if entry.dtype == "string" else tf.int64 for entry in plan.fields}
    spec = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in dtypes.items()}
    metadata = tft.DatasetMetadata.from_feature_spec(spec)
    # tfx_bsl expects sorted columns of large lists.
    schema = pa.schema(
        [(name, pa.large_list(pa.large_binary() if dtypes[name] == tf.string else pa.int64())) for name in sorted(dtypes)]
    )
    representations = tensor_representation_util.InferTensorRepresentationsFromSchema(metadata.schema)
    return TensorAdapterConfig(schema, representations), schema


def _write_batch(batch: pa.Table, schema: pa.Schema, path: Path) -> str:
    columns = []
    for entry in schema:
        values = batch[entry.name].combine_chunks()
        values = values.cast(pa.int64()) if entry.type.value_type == pa.int64() else values.cast(pa.large_binary())
        offsets = pa.array(range(len(values) + 1), pa.int64())
        columns.append(pa.LargeListArray.from_arrays(offsets, values))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return str(path)


def _read_batch(name: str) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(name, "rb") as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
