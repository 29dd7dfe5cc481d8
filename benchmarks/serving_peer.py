"""What serving is compared with: KServe's Feast transformer and predictor, as its documentation builds them, and KServe bare.

``python -m benchmarks.serving_peer ROLE PORT ...`` runs one of them. The transformer looks features up in stock Feast in its
``preprocess`` and passes them on to the predictor, a process of its own; Feast holds ready values, so neither computes any.
Their logging is off and they listen on 127.0.0.1, like ours; all else is KServe's own.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pandas as pd
import uvicorn
from kserve import Model, ModelServer
from kserve.predictor_config import PredictorConfig
from numpy.typing import NDArray

from plumb.settings import prepare_native_libraries

VIEW: Final = "bench"
BARE, PREDICTOR, TRANSFORMER = "bare", "predictor", "transformer"


class BareModel(Model):
    """Answers a constant: what KServe's server itself costs."""

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """One constant an instance."""
        return {"predictions": [{"score": 0.5} for _ in payload["instances"]]}


class Predictor(Model):
    """The network alone, on transformed rows."""

    def __init__(self, name: str, network: Path) -> None:
        super().__init__(name)
        import keras
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        loaded = keras.saving.load_model(network)
        spec = [tf.TensorSpec([None, loaded.input_shape[1]], tf.float32)]
        self._score = tf.function(lambda rows: loaded(rows, training=False)[:, 0], input_signature=spec)
        self._score(tf.zeros([1, loaded.input_shape[1]]))
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """Scores of ``instances``, each a list of floats."""
        return {"predictions": self._score(np.array(payload["instances"], np.float32)).numpy().tolist()}


class FeastTransformer(Model):
    """Entity ids to feature values, then on to the predictor."""

    def __init__(self, name: str, folder: Path, redis: str) -> None:
        super().__init__(name)
        self._store = open_feast(folder, redis)
        self._names: list[str] = orjson.loads((folder / "names.json").read_bytes())
        self._features = [f"{VIEW}:{name}" for name in self._names]
        self.ready = True

    async def preprocess(self, payload: Any, headers: Any = None) -> dict[str, Any]:
        """``{"instances": [{"entity_id": ...}]}`` to rows of floats."""
        rows = [{"user_id": entry["entity_id"]} for entry in payload["instances"]]
        found = self._store.get_online_features(self._features, entity_rows=rows).to_dict()
        return {"instances": list(zip(*(found[name] for name in self._names), strict=True))}


def open_feast(folder: Path, redis: str) -> Any:
    """Stock Feast on Redis database 1."""
    from feast import FeatureStore, RepoConfig

    config = RepoConfig(
        project=VIEW, registry=str(folder / "registry.db"), provider="local", entity_key_serialization_version=3,
        online_store={"type": "redis", "connection_string": f"{redis},db=1"}, offline_store={"type": "file"},
    )  # fmt: skip
    return FeatureStore(config=config)


def fill_feast(folder: Path, redis: str, names: list[str], entity_ids: list[str], values: NDArray[np.float32]) -> None:
    """Write ready values by Feast itself, one feature view with one field a column.

    Args:
        folder: an empty one, for the registry.
        redis: ``HOST:PORT``.
        values: (u, F).
    """
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Float32
    from feast.value_type import ValueType

    frame = pd.DataFrame(values, columns=names)
    frame["user_id"], frame["event_timestamp"] = entity_ids, datetime.now(UTC)
    frame.head(1).to_parquet(folder / "source.parquet")
    (folder / "names.json").write_bytes(orjson.dumps(names))
    source = FileSource(path=str(folder / "source.parquet"), timestamp_field="event_timestamp")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    schema = [Field(name=name, dtype=Float32) for name in names]
    view = FeatureView(name=VIEW, entities=[user], ttl=timedelta(days=3_650), schema=schema, source=source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, about its dependencies
        store = open_feast(folder, redis)
        store.apply([user, view])
        store.write_to_online_store(VIEW, frame)


class LoopbackConfig(uvicorn.Config):
    """KServe has no option for the address; everything of this repository listens on 127.0.0.1."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "host": "127.0.0.1"})


def main(role: str, port: int, name: str, rest: list[str]) -> None:
    """Serve one role until stopped."""
    warnings.simplefilter("ignore")
    uvicorn.Config = LoopbackConfig  # type: ignore[misc]
    model: Model
    predictor = None
    if role == BARE:
        model = BareModel(name)
        model.ready = True
    elif role == PREDICTOR:
        model = Predictor(name, Path(rest[0]))
    else:
        predictor = PredictorConfig(f"127.0.0.1:{rest[0]}")
        model = FeastTransformer(name, Path(rest[1]), rest[2])
    server = ModelServer(
        http_port=port, enable_grpc=False, workers=1, enable_latency_logging=False, predictor_config=predictor
    )  # fmt: skip
    for logger in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access", "httpx"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    model.enable_latency_logging = False
    server.start([model])


if __name__ == "__main__":
    prepare_native_libraries(os.environ)
    os.environ["FEAST_USAGE"] = "False"
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
