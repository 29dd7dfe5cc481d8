"""A client from outside, NVIDIA's tritonclient, in a process of its own: its messages bear the names of KServe's.

Asks a server of the tiny model for health, metadata and inference, by REST with binary tensors or by gRPC.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

NOW_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
NAMES = ["u1", "u2", "nobody"]
PLATFORMS = ["ios", "android", "web"]
SCORES = [2 / 8 + 3 / 1024, 3 / 8 + 7 / 1024, 3 / 1024]
"""The tiny model's: records / 8 + letters / 1024; user i has i % 50 + 1 records."""


def main(kind: str, address: str) -> None:
    module = importlib.import_module(f"tritonclient.{kind}")
    client = module.InferenceServerClient(address)
    check_health_and_metadata(client)
    check_inference(module, client)
    check_candidates(module, client)


def check_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("churn")
    metadata = client.get_model_metadata("churn")
    if not isinstance(metadata, dict):
        metadata = {"name": metadata.name, "inputs": [{"name": entry.name} for entry in metadata.inputs]}
    assert metadata["name"] == "churn"
    assert [entry["name"] for entry in metadata["inputs"]] == ["entity_id", "now", "platform", "candidates"]


def check_inference(module: Any, client: Any) -> None:
    inputs = [
        tensor(module, "entity_id", "BYTES", NAMES), tensor(module, "now", "INT64", [NOW_US] * 3),
        tensor(module, "platform", "BYTES", PLATFORMS),
    ]  # fmt: skip
    outputs = [module.InferRequestedOutput(name) for name in ("score", "cold", "within")]
    answer = client.infer("churn", inputs, outputs=outputs, request_id="from outside")
    assert answer.as_numpy("score").dtype == np.float32
    assert answer.as_numpy("score").tolist() == SCORES
    assert answer.as_numpy("cold").tolist() == [False, False, True]
    assert answer.as_numpy("within").shape == (3, 2)


def check_candidates(module: Any, client: Any) -> None:
    inputs = [
        tensor(module, "entity_id", "BYTES", ["u1"]), tensor(module, "now", "INT64", [NOW_US]),
        tensor(module, "candidates", "INT64", [3]), tensor(module, "platform", "BYTES", PLATFORMS),
    ]  # fmt: skip
    answer = client.infer("churn", inputs)
    assert answer.as_numpy("score").tolist() == [2 / 8 + len(platform) / 1024 for platform in PLATFORMS]
    assert answer.as_numpy("cold").tolist() == [False]


def tensor(module: Any, name: str, datatype: str, values: list[Any]) -> Any:
    made = module.InferInput(name, [len(values)], datatype)
    made.set_data_from_numpy(np.array(values, dtype=object if datatype == "BYTES" else np.int64))
    return made


if __name__ == "__main__":
    main(*sys.argv[1:])
