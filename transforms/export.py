"""Export graphs as SavedModels with named inputs, for any runtime that serves a SavedModel.

``export_model`` puts the fitted graph and a network into one artifact; ``export_window_graph`` writes a view's
analyzer-free window graph. Every variable and table is tracked by the saved module itself, so that loaders which restore
by name (the TF1 loader, TF Serving) find them as the Python loader does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from features.catalogs import load_catalog
from features.declarations import Catalog, View
from features.errors import explain
from transforms.candidates import OWNER, SplitGraph
from transforms.errors import GraphError
from transforms.explanation import explain_rows, plan_coalitions
from transforms.graph import Tensors, finish, input_specs
from transforms.joined import JoinedGraph, joined_graphs
from transforms.plan import GraphPlan, plan_graph

SAVED_MODEL: Final = "saved_model"
MODEL_RECORD: Final = "model.json"
Arrays = dict[str, NDArray[Any]]
Finisher = Callable[[pa.Table], Arrays]


class ServedModel(tf.Module):
    """Graph and network as one module with its signatures."""

    def __init__(self, graph: Any, network: keras.Model, record: dict[str, Any]) -> None:
        super().__init__()
        self.graph = graph
        self.network = network
        # Keras 3 keeps its variables out of tf.Module's sight; loaders that restore by name need them here.
        self.tracked = [variable.value for variable in network.variables]
        self._reference = np.array(record["reference"], dtype=np.float32)
        self._coalitions = plan_coalitions(record["transformed_groups"])
        self._split = SplitGraph(graph.transform_fn)
        self._request_fields = {OWNER, *(entry["name"] for entry in record["request_fields"])}
        self._wide = "slots" if record.get("slot_names") else "within"
        self.joined = _joined_of(record)
        specs = _specs_of(record)
        self._specs = tuple(specs.items())
        by_candidate = {**specs, OWNER: tf.TensorSpec([None], tf.int64, name=OWNER)}
        self.serve = tf.function(self._serve, input_signature=[specs])
        self.finish = tf.function(self._finish, input_signature=[specs])
        self.explain = tf.function(self._explain, input_signature=[specs])
        self.serve_candidates = tf.function(self._serve_candidates, input_signature=[by_candidate])

    def functions(self) -> dict[str, Any]:
        """What is exported, by signature."""
        return {
            "serving_default": self.serve,
            "features": self.finish,
            "explain": self.explain,
            "candidates": self.serve_candidates,
            **{name: graph.serve for name, graph in self.joined.items()},
        }

    def specs_by_owner(self) -> tuple[dict[str, tf.TensorSpec], dict[str, tf.TensorSpec]]:
        """Inputs that belong to a user, and those that belong to what is scored for her: the request fields."""
        users = {name: spec for name, spec in self._specs if name not in self._request_fields}
        return users, {name: spec for name, spec in self._specs if name not in users}

    def _serve(self, inputs: Tensors) -> Tensors:
        return self._predict(self.graph.transform_fn(inputs)["transformed"])

    def _finish(self, inputs: Tensors) -> Tensors:
        outputs = self.graph.transform_fn(inputs)
        finished = {name: outputs[name] for name in ("integers", "finished", "transformed")}
        return finished | self._predict(outputs["transformed"])

    def _explain(self, inputs: Tensors) -> Tensors:
        transformed = self.graph.transform_fn(inputs)["transformed"]
        return explain_rows(
            self._coalitions, tf.constant(self._reference), transformed, lambda rows: self._predict(rows)["score"]
        )

    def _serve_candidates(self, inputs: Tensors) -> Tensors:
        users = {name: tensor for name, tensor in inputs.items() if name not in self._request_fields}
        candidates = {name: tensor for name, tensor in inputs.items() if name in self._request_fields}
        return self._predict(self._split.transform(users, candidates))

    def _predict(self, transformed: tf.Tensor) -> Tensors:
        outputs = self.network(transformed, training=False)
        answers = {"score": outputs[:, 0]}
        return answers | {self._wide: outputs[:, 1:]} if outputs.shape[1] > 1 else answers


class WindowGraph(tf.Module):
    """A view's finished, unscaled features."""

    def __init__(self, plan: GraphPlan) -> None:
        super().__init__()
        self._plan = plan
        self.serve = tf.function(self._serve, input_signature=[input_specs(plan)])

    def _serve(self, inputs: Tensors) -> Tensors:
        outputs = finish(self._plan, inputs)
        return {"integers": outputs["integers"], "finished": outputs["finished"]}


def export_model(
    graph_dir: Path, network_path: Path, out_dir: Path, *, delay_buckets_s: Sequence[int] = (), slot_names: Sequence[str] = ()
) -> None:
    """Write graph and network as one SavedModel.

    Args:
        graph_dir: what ``fit.fit_graph`` wrote.
        network_path: a ``.keras`` file with one input (n, T) and one output (n, 1 + K): the score, and the probability of
            the outcome within each of K delay-bucket edges. Layers that Keras does not know must have been imported.
        out_dir: gets ``saved_model/`` and ``model.json``. All signatures take the same inputs by name: ``serving_default``
            gives ``score`` float32 (n,) and, where K > 0, ``within`` float32 (n, K), or ``slots`` float32 (n, S) of a model of
            hours of the week; ``features`` also integers, finished and transformed; ``explain`` gives ``contributions`` float32
            (n, G) and ``base`` float32 (n,). ``candidates`` gives what ``serving_default`` does, from request fields and
            ``owner`` int64 of shape (n,) and all else (u,).
            A network of two towers has the signatures of ``two_towers`` besides, a view with joins one for each of them.
        delay_buckets_s: the K ascending edges.
        slot_names: of a model of hours of the week, which has S outputs besides the score instead of K, their names.

    Raises:
        GraphError: the network does not take what the graph gives, or does not give a score and K probabilities.
    """
    record = json.loads((graph_dir / "graph.json").read_text()) | {"slot_names": list(slot_names)}
    network = keras.saving.load_model(network_path)
    shapes = (tuple(network.input_shape), tuple(network.output_shape))
    expected = ((None, len(record["transformed_names"])), (None, 1 + len(delay_buckets_s) + len(slot_names)))
    if shapes != expected:
        raise GraphError(
            explain("network does not fit its graph", which=str(network_path), got=f"{shapes[0]} -> {shapes[1]}",
                    expected=f"{expected[0]} -> {expected[1]}", next_step="train the network on the features of this graph")
        )  # fmt: skip
    from transforms.two_towers import TwoTowerModel, has_towers

    kind = TwoTowerModel if has_towers(network) else ServedModel
    module = kind(tf.saved_model.load(str(graph_dir / "transform_fn")), network, record)
    partial = out_dir / f"{SAVED_MODEL}.partial"
    tf.saved_model.save(module, str(partial), signatures=module.functions())
    shutil.rmtree(out_dir / SAVED_MODEL, ignore_errors=True)
    partial.rename(out_dir / SAVED_MODEL)
    record |= {"groups": list(dict.fromkeys(record["transformed_groups"])), "delay_buckets_s": list(delay_buckets_s)}
    (out_dir / MODEL_RECORD).write_text(json.dumps(record, indent=2))


def export_window_graph(catalog: Catalog, view: View, out_dir: Path) -> None:
    """Write a view's window graph as a SavedModel with one signature: inputs by name -> integers, finished."""
    module = WindowGraph(plan_graph(catalog, view))
    tf.saved_model.save(module, str(out_dir), signatures={"serving_default": module.serve})


def load_finisher(saved_model: Path, plan: GraphPlan) -> Finisher:
    """A saved graph as a function from rows to arrays by output name.

    Args:
        saved_model: written by ``export_window_graph``, ``export_model`` or tf.Transform.
        plan: of the same view.
    Returns:
        A function of an Arrow table with the columns ``state``, ``now`` and every field; missing fields get defaults.
    """
    loaded = tf.saved_model.load(str(saved_model))
    signatures = loaded.signatures

    def call(inputs: Tensors) -> Tensors:
        if hasattr(loaded, "transform_fn"):
            return dict(loaded.transform_fn(inputs))
        return dict(signatures["features" if "features" in signatures else "serving_default"](**inputs))

    def finish_rows(rows: pa.Table) -> Arrays:
        outputs = call({name: tf.constant(values) for name, values in graph_inputs(rows, plan).items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return finish_rows


def graph_inputs(rows: pa.Table, plan: GraphPlan) -> Arrays:
    """Columns of training or state rows as the graph's named inputs; nulls and absent fields become defaults."""
    inputs: Arrays = {
        "state": np.array(rows["state"].to_pylist(), dtype=object),
        "now": rows["now"].cast(pa.int64()).to_numpy(),
    }
    for entry in plan.fields:
        present = entry.name in rows.column_names
        values = rows[entry.name].fill_null(entry.default).to_pylist() if present else [entry.default] * rows.num_rows
        inputs[entry.name] = np.array(values, dtype=object if entry.dtype == "string" else np.int64)
    return inputs


def _joined_of(record: dict[str, Any]) -> dict[str, JoinedGraph]:
    if not record.get("joins"):
        return {}
    catalog = load_catalog(record["catalog"])
    return joined_graphs(catalog, catalog.view(record["view"]["name"]))


def _specs_of(record: dict[str, Any]) -> dict[str, tf.TensorSpec]:
    dtypes = {"state": "string", "now": "int64"}
    dtypes |= {entry["name"]: entry["dtype"] for entry in (*record["profile_fields"], *record["request_fields"])}
    return {name: tf.TensorSpec([None], tf.dtypes.as_dtype(dtype), name=name) for name, dtype in dtypes.items()}
