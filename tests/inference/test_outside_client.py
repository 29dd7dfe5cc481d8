"""A client from outside, NVIDIA's tritonclient: health, metadata, V2 REST with binary tensors, and gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

NOW_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
NAMES = ["u1", "u2", "nobody"]
PLATFORMS = ["ios", "android", "web"]
SCORES = [2 / 8 + 3 / 1024, 3 / 8 + 7 / 1024, 3 / 1024]
"""The tiny model's: records / 8 + letters / 1024; user i has i % 50 + 1 records."""
Served = Any


@pytest.fixture(params=["http", "grpc"])
def client(served: Served, request: pytest.FixtureRequest) -> Any:
    if request.param == "http":
        return tritonclient.http.InferenceServerClient(served.url.removeprefix("http://"))
    return tritonclient.grpc.InferenceServerClient(served.grpc)


def module_of(client: Any) -> Any:
    return tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc


def tensor(module: Any, name: str, datatype: str, values: list[Any]) -> Any:
    made = module.InferInput(name, [len(values)], datatype)
    made.set_data_from_numpy(np.array(values, dtype=object if datatype == "BYTES" else np.int64))
    return made


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("churn")
    metadata = client.get_model_metadata("churn")
    if not isinstance(metadata, dict):
        metadata = {"name": metadata.name, "inputs": [{"name": entry.name} for entry in metadata.inputs]}
    assert metadata["name"] == "churn"
    assert [entry["name"] for entry in metadata["inputs"]] == ["entity_id", "now", "platform", "candidates"]


def test_inference_with_binary_tensors(client: Any) -> None:
    module = module_of(client)
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


def test_candidates_of_one_user(client: Any) -> None:
    module = module_of(client)
    inputs = [
        tensor(module, "entity_id", "BYTES", ["u1"]), tensor(module, "now", "INT64", [NOW_US]),
        tensor(module, "candidates", "INT64", [3]), tensor(module, "platform", "BYTES", PLATFORMS),
    ]  # fmt: skip
    answer = client.infer("churn", inputs)
    assert answer.as_numpy("score").tolist() == [2 / 8 + len(platform) / 1024 for platform in PLATFORMS]
    assert answer.as_numpy("cold").tolist() == [False]
