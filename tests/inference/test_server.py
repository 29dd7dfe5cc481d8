"""A running ``plumb serve``: V1, V2 JSON and binary, gRPC, bad requests, readiness, metrics, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import grpc
import httpx
import numpy as np
import orjson
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

NOON_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z, a minute after the store's as-of time
INFER = "/v2/models/churn/infer"
SHARDS = 8
EMPTY_SHARD = 7
Served = Any


def user(i: int, shard_not: int = EMPTY_SHARD) -> bool:
    return crc32(f"u{i}".encode()) % SHARDS != shard_not


KNOWN = [i for i in range(200) if user(i)]
ONE, TWO = KNOWN[0], next(i for i in KNOWN if i % 3 == 0 and i > 10)  # the second has a profile


def expected_score(i: int, letters: int) -> float:
    """The tiny model's formula: records / 8 + letters / 1024; every term is exact in float32."""
    return (i % 50 + 1) / 8 + letters / 1024


def v2_body(names: list[str], **extra: Any) -> dict[str, Any]:
    tensors = [
        {"name": "entity_id", "shape": [len(names)], "datatype": "BYTES", "data": names},
        {"name": "now", "shape": [len(names)], "datatype": "INT64", "data": [NOON_US] * len(names)},
    ]
    return {"inputs": tensors, **extra}


def check_protocol(reply: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A response of the Open Inference Protocol: names, shapes, datatypes, and data that fits them. Outputs by name."""
    python_types = {"FP32": (float, int), "FP64": (float, int), "INT64": (int,), "BOOL": (bool,), "BYTES": (str,)}
    assert reply["model_name"] == "churn"
    assert isinstance(reply.get("model_version"), str | None)
    assert isinstance(reply.get("id"), str | None)
    assert all(isinstance(value, str | bool | int) for value in (reply.get("parameters") or {}).values())
    for output in reply["outputs"]:
        assert set(output) <= {"name", "shape", "datatype", "parameters", "data"}
        assert len(output["data"]) == np.prod(output["shape"])
        assert all(isinstance(value, python_types[output["datatype"]]) for value in output["data"])
        assert all(isinstance(value, str | bool | int) for value in (output.get("parameters") or {}).values())
    return {output["name"]: output for output in reply["outputs"]}


def test_a_v1_request_is_answered_with_score_position_and_age(served: Served) -> None:
    reply = served.predict({"entity_id": f"u{ONE}", "now": "2025-03-01T12:00:00Z", "platform": "ios"})
    assert reply.status_code == 200
    assert reply.json() == {
        "predictions": [
            {
                "entity_id": f"u{ONE}",
                "score": expected_score(ONE, 3),
                "cold": False,
                "log_partition": crc32(f"u{ONE}".encode()) % SHARDS,
                "log_offset": ONE,
                "age_s": 60.0,
                "degraded": None,
                "within": {"7d": expected_score(ONE, 3) / 4, "30d": expected_score(ONE, 3)},
            }
        ],
        "model_name": "churn",
        "model_version": "1",
        "revision": "stable",
    }


def test_the_features_behind_the_score_come_by_name_when_asked_for(served: Served) -> None:
    prediction = served.predict({"entity_id": f"u{TWO}", "now": NOON_US}, features=True).json()["predictions"][0]
    records = TWO % 50 + 1
    assert prediction["integers"] == {"records": records, "now": NOON_US, "offset": 60 + TWO}
    assert prediction["features"] == {"records": records, "letters": 7.0}
    assert prediction["transformed"] == {"records/8": records / 8, "letters/8": 7 / 8}


def test_an_explanation_names_signals_by_size_with_direction_and_values(served: Served) -> None:
    """The tiny model: sessions add (records - 1) / 8, the platform letters / 1024, offers nothing; the base is 1 / 8."""
    asked = {"entity_id": f"u{TWO}", "now": NOON_US, "platform": "ios"}
    prediction = served.predict(asked, explain=True).json()["predictions"][0]
    records = TWO % 50 + 1
    assert "features" not in prediction
    assert prediction["explanation"] == {
        "base": 1 / 8,
        "contributions": [
            {
                "signal": "sessions",
                "contribution": (records - 1) / 8,
                "direction": "raises",
                "values": {"records": records, "letters": 3.0},
            },
            {"signal": "platform", "contribution": 3 / 1024, "direction": "raises", "values": {"platform": "ios"}},
            {"signal": "offers_shown", "contribution": 0.0, "direction": "none", "values": {}},
        ],
    }
    points = [entry["contribution"] for entry in prediction["explanation"]["contributions"]]
    assert sum(points) == prediction["score"] - 1 / 8
    cold = served.predict({"entity_id": "nobody", "now": NOON_US}, explain=True).json()["predictions"][0]
    assert cold["explanation"]["contributions"][0] == {
        "signal": "sessions", "contribution": -1 / 8, "direction": "lowers", "values": {"records": 0, "letters": 7.0},
    }  # fmt: skip


def test_an_unknown_user_gets_the_cold_start_answer_and_is_told_so(served: Served) -> None:
    names = [name for name in ("n1", "n2", "n3", "n4") if crc32(name.encode()) % SHARDS != EMPTY_SHARD]
    for prediction in served.predict(*({"entity_id": name, "now": NOON_US} for name in names)).json()["predictions"]:
        assert prediction["cold"] is True
        assert prediction["score"] == 7 / 1024
        assert prediction["log_offset"] == 500 + prediction["log_partition"]
        assert prediction["degraded"] is None


def test_a_user_of_a_shard_that_was_never_filled_is_told_so(served: Served) -> None:
    name = next(f"u{i}" for i in range(200) if not user(i))
    prediction = served.predict({"entity_id": name, "now": NOON_US}).json()["predictions"][0]
    assert (prediction["cold"], prediction["degraded"], prediction["log_offset"]) == (True, "empty_shard", -1)


def test_without_now_the_servers_clock_is_used_and_an_old_store_is_called_stale(served: Served) -> None:
    before_us = time.time_ns() // 1_000
    prediction = served.predict({"entity_id": f"u{ONE}"}, features=True).json()["predictions"][0]
    assert before_us <= prediction["integers"]["now"] <= time.time_ns() // 1_000
    assert prediction["degraded"] == "stale_state"


def test_many_entities_keep_their_order_and_may_repeat(served: Served) -> None:
    order = [*KNOWN, *reversed(KNOWN)]
    reply = served.predict(*({"entity_id": f"u{i}", "now": NOON_US, "platform": "web"} for i in order)).json()
    assert [prediction["score"] for prediction in reply["predictions"]] == [expected_score(i, 3) for i in order]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", None])
@pytest.mark.parametrize("path", ["/v1/models/churn:predict", INFER])
def test_json_is_read_with_any_content_type_that_means_json_or_none(
    served: Served, path: str, content_type: str | None
) -> None:
    body = {"instances": [{"entity_id": f"u{ONE}"}]} if path.startswith("/v1") else v2_body([f"u{ONE}"])
    headers = {"content-type": content_type} if content_type else {}
    assert httpx.post(served.url + path, content=orjson.dumps(body), headers=headers).status_code == 200


def test_a_v2_json_request_is_answered_in_the_protocols_form(served: Served) -> None:
    outputs = check_protocol(served.post(INFER, v2_body([f"u{ONE}", "nobody"], id="42")).json())
    assert list(outputs) == ["score", "cold", "log_partition", "log_offset", "age_s", "degraded", "within"]
    assert (outputs["within"]["shape"], outputs["within"]["parameters"]["names"]) == ([2, 2], "7d,30d")
    assert outputs["within"]["data"][:2] == [expected_score(ONE, 7) / 4, expected_score(ONE, 7)]
    assert outputs["score"]["data"] == [expected_score(ONE, 7), 7 / 1024]
    assert outputs["cold"]["data"] == [False, True]
    assert outputs["log_offset"]["data"][0] == ONE
    assert outputs["degraded"]["data"][0] == ""
    reply = served.post(INFER, v2_body([f"u{ONE}"], id="42")).json()
    assert (reply["id"], reply["model_version"], reply["parameters"]["revision"]) == ("42", "1", "stable")


def test_a_v2_reply_carries_the_features_as_named_tensors(served: Served) -> None:
    outputs = check_protocol(served.post(INFER, v2_body([f"u{ONE}", f"u{TWO}"], parameters={"features": True})).json())
    assert outputs["integers"]["shape"] == [2, 3]
    assert outputs["integers"]["data"][3:] == [TWO % 50 + 1, NOON_US, 60 + TWO]
    assert outputs["finished"]["parameters"]["names"] == "records,letters"
    assert outputs["transformed"]["data"][1] == 7 / 8


def test_a_v2_reply_carries_contributions_as_a_named_tensor(served: Served) -> None:
    for asked in ({"parameters": {"explain": True}}, {"outputs": [{"name": "contributions"}, {"name": "base"}]}):
        outputs = check_protocol(served.post(INFER, v2_body([f"u{ONE}"], **asked)).json())
        assert "finished" not in outputs
        assert outputs["contributions"]["parameters"]["names"] == "sessions,offers_shown,platform"
        assert outputs["contributions"]["data"] == [(ONE % 50) / 8, 0, 7 / 1024]
        assert outputs["base"]["data"] == [1 / 8]


def test_a_v2_request_may_name_the_outputs_it_wants(served: Served) -> None:
    outputs = check_protocol(served.post(INFER, v2_body([f"u{ONE}"], outputs=[{"name": "score"}, {"name": "finished"}])).json())
    assert list(outputs) == ["score", "finished"]
    refused = served.post(INFER, v2_body([f"u{ONE}"], outputs=[{"name": "state"}]))
    assert refused.status_code == 400


def test_model_metadata_names_inputs_and_outputs(served: Served) -> None:
    metadata = httpx.get(f"{served.url}/v2/models/churn").json()
    assert [(entry["name"], entry["datatype"]) for entry in metadata["inputs"]] == [
        ("entity_id", "BYTES"), ("now", "INT64"), ("platform", "BYTES"), ("candidates", "INT64"),
    ]  # fmt: skip
    shapes = {entry["name"]: entry["shape"] for entry in metadata["outputs"]}
    assert (shapes["integers"], shapes["within"], shapes["contributions"]) == ([-1, 3], [-1, 2], [-1, 3])


def binary_request(names: list[str], **parameters: Any) -> InferRequest:
    ids = InferInput("entity_id", [len(names)], "BYTES")
    ids.set_data_from_numpy(np.array(names, dtype=object), binary_data=True)
    now = InferInput("now", [len(names)], "INT64")
    now.set_data_from_numpy(np.full(len(names), NOON_US), binary_data=True)
    return InferRequest("churn", [ids, now], parameters=parameters or None)


def numbers(response: InferResponse) -> dict[str, np.ndarray]:
    def values(output: InferOutput) -> np.ndarray:
        return np.asarray(output.as_numpy())

    return {output.name: values(output) for output in response.outputs}


def test_kserves_rest_client_gets_the_same_from_binary_tensors(served: Served) -> None:
    async def ask() -> InferResponse:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
        request = binary_request([f"u{ONE}", f"u{TWO}"], features=True, binary_data_output=True)
        try:
            return await client.infer(served.url, request, model_name="churn")
        finally:
            await client.close()

    outputs = numbers(asyncio.run(ask()))
    assert outputs["score"].tolist() == [expected_score(ONE, 7), expected_score(TWO, 7)]
    assert outputs["integers"].tolist()[1] == [TWO % 50 + 1, NOON_US, 60 + TWO]
    assert outputs["finished"].dtype == np.float32


@pytest.mark.parametrize("binary", [True, False])
def test_kserves_grpc_client_gets_the_same(served: Served, binary: bool) -> None:
    async def ask() -> InferResponse:
        client = InferenceGRPCClient(served.grpc, timeout=30)
        request = binary_request([f"u{ONE}", "nobody"], features=True, explain=True)
        if not binary:
            columns: list[tuple[str, str, list[Any]]] = [
                ("entity_id", "BYTES", [f"u{ONE}", "nobody"]),
                ("now", "INT64", [NOON_US] * 2),
            ]
            inputs = [InferInput(name, [2], kind, data) for name, kind, data in columns]
            request = InferRequest("churn", inputs, parameters={"features": True, "explain": True})
        try:
            return await client.infer(request)
        finally:
            await client.close()

    response = asyncio.run(ask())
    outputs = numbers(response)
    assert response.model_version == "1"
    assert outputs["score"].tolist() == [expected_score(ONE, 7), 7 / 1024]
    assert outputs["cold"].tolist() == [False, True]
    assert outputs["integers"].tolist()[0][:2] == [ONE % 50 + 1, NOON_US]
    assert outputs["contributions"].tolist() == [[(ONE % 50) / 8, 0, 7 / 1024], [-1 / 8, 0, 7 / 1024]]
    assert outputs["within"].shape == (2, 2)


BAD_V1 = [
    (b"{", "Unrecognized request format|no JSON"),
    (b"[]", "not a JSON object"),
    (b'{"instances": []}', "wrong number of entities"),
    (b'{"instances": [{"platform": "ios"}]}', "entity_id is missing"),
    (b'{"instances": [{"entity_id": "u1", "colour": "red"}]}', "unknown request field"),
    (b'{"instances": [{"entity_id": 5}]}', "wrong type"),
    (b'{"instances": [{"entity_id": ""}]}', "1 to 511 bytes"),
    (b'{"instances": [{"entity_id": "' + b"x" * 512 + b'"}]}', "1 to 511 bytes"),
    (b'{"instances": [{"entity_id": "u1", "now": "2025-03-01T12:00:00"}]}', "no time zone"),
    (b'{"instances": [{"entity_id": "u1"}], "parameters": {"x": 1}}', "unknown name"),
    (b'{"instances": [{"entity_id": "\xff\xfe"}]}', "JSON"),
    (
        b'{"instances": [' + b",".join([b'{"entity_id": "u1"}'] * 51) + b'], "parameters": {"explain": true}}',
        "1 to 50 entities",
    ),
    (b'{"instances": [' + b",".join([b'{"entity_id": "u1"}'] * 5_001) + b"]}", "1 to 5000; got 5001"),
]


def assert_one_line(reply: httpx.Response, expected: str, status: int = 400) -> None:
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"]
    line = reply.json()["error"]
    assert "\n" not in line
    assert any(part in line for part in expected.split("|")), line


@pytest.mark.parametrize(("body", "expected"), BAD_V1)
def test_a_bad_v1_request_is_answered_with_one_line(served: Served, body: bytes, expected: str) -> None:
    headers = {"content-type": "application/json"}
    assert_one_line(httpx.post(f"{served.url}/v1/models/churn:predict", content=body, headers=headers), expected)


BAD_V2: list[tuple[object, str]] = [
    ({}, "inputs"),
    ({"inputs": "entity_id"}, "inputs"),
    ({"inputs": []}, "input is missing"),
    ({"inputs": [{"name": "entity_id", "shape": [1], "datatype": "BYTES"}]}, "data"),
    ({"inputs": [{"name": "entity_id", "shape": [2], "datatype": "BYTES", "data": ["u1"]}]}, "declared shape"),
    ({"inputs": [{"name": "entity_id", "shape": [1], "datatype": "FP32", "data": [1.5]}]}, "wrong datatype"),
    ({"inputs": [{"name": "state", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}, "unknown request field"),
    (v2_body(["u1"], parameters={"depth": 1}), "unknown name"),
    (v2_body(["u1"] * 5_001), "1 to 5000; got 5001"),
]


@pytest.mark.parametrize(("body", "expected"), BAD_V2)
def test_a_bad_v2_request_is_answered_with_one_line(served: Served, body: object, expected: str) -> None:
    assert_one_line(served.post(INFER, body), expected)


@pytest.mark.parametrize(
    ("header", "tail"),
    [
        (
            {"name": "entity_id", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
            b"\x02\x00\x00\x00\xff\xfe",
        ),
        (
            {"name": "entity_id", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
            b"\x09\x00\x00\x00ab",
        ),
        ({"name": "entity_id", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": "six"}}, b""),
        ({"name": "now", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 3}}, b"abc"),
        ({"shape": [1], "datatype": "BYTES"}, b""),
        ({"name": "entity_id", "shape": "one", "datatype": "BYTES", "data": ["u1"]}, b""),
    ],
)
def test_binary_tensors_that_do_not_fit_are_answered_with_one_line(served: Served, header: object, tail: bytes) -> None:
    head = orjson.dumps({"inputs": [header]})
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    assert_one_line(httpx.post(served.url + INFER, content=head + tail, headers=headers), "")


def test_a_wrong_binary_header_length_is_answered_with_one_line(served: Served) -> None:
    for length in ("", "ten", "3", "-1"):
        headers = {"inference-header-content-length": length, "content-type": "application/octet-stream"}
        assert_one_line(httpx.post(served.url + INFER, content=orjson.dumps(v2_body(["u1"])), headers=headers), "")


def test_another_model_name_is_not_found(served: Served) -> None:
    assert_one_line(served.post("/v1/models/other:predict", {"instances": []}), "other does not exist", 404)
    assert_one_line(served.post("/v2/models/other/infer", v2_body(["u1"])), "other does not exist", 404)


def test_models_cannot_be_unloaded_over_the_network(served: Served) -> None:
    assert_one_line(served.post("/v2/repository/models/churn/unload", {}), "cannot be unloaded", 501)
    assert served.predict({"entity_id": "u1"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "other does not exist"),
        ({"inputs": []}, grpc.StatusCode.INVALID_ARGUMENT, "input is missing"),
        ({"raw_input_contents": [b"\x09\x00"]}, grpc.StatusCode.INVALID_ARGUMENT, "cannot be unpacked"),
        ({"raw_input_contents": [b"\x02\x00\x00\x00\xff\xfe"]}, grpc.StatusCode.INVALID_ARGUMENT, "no UTF-8 text"),
        ({"raw_input_contents": [b"", b""]}, grpc.StatusCode.INVALID_ARGUMENT, "does not match"),
    ],
)
def test_a_bad_grpc_request_gets_a_status_and_one_line(
    served: Served, change: dict[str, Any], status: grpc.StatusCode, expected: str
) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="entity_id", datatype="BYTES", shape=[1])
    request = pb.ModelInferRequest(**{"model_name": "churn", "inputs": [tensor], **change})
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    assert caught.value.code() == status
    assert expected in caught.value.details()
    assert "\n" not in caught.value.details()


def links_in(folder: Path) -> Iterator[str]:
    """Where the links point; one may vanish meanwhile, as closed connections do."""
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield str(link.readlink())


def test_only_loopback_addresses_are_listened_on(served: Served) -> None:
    proc = Path("/proc") / str(served.process.pid)
    sockets = set(re.findall(r"socket:\[(\d+)\]", " ".join(links_in(proc / "fd"))))
    rows = [line.split() for table in ("tcp", "tcp6") for line in (proc / "net" / table).read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[9] in sockets}
    ports = [int(address.rsplit(":", 1)[1]) for address in (served.url, served.grpc)]
    # The kernel writes 127.0.0.1 so, and ::ffff:127.0.0.1 with more in front.
    assert {address[-13:] for address in listening} == {f"0100007F:{port:04X}" for port in ports}
    assert {address[:-13] for address in listening} <= {"", "0000000000000000FFFF0000"}


def test_health_and_metadata_are_served_on_both_front_ends(served: Served) -> None:
    for path in ("/", "/v2/health/live", "/v2/health/ready", "/v1/models/churn", "/v2/models/churn/ready", "/v2"):
        assert httpx.get(served.url + path).status_code == 200, path
    with grpc.insecure_channel(served.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=10).ready
        assert stub.ModelReady(pb.ModelReadyRequest(name="churn"), timeout=10).ready


def counts(served: Served) -> dict[str, float]:
    lines = httpx.get(f"{served.url}/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line.startswith("plumb_"))}


def test_metrics_count_outcomes_cold_users_degraded_answers_and_stages(served: Served) -> None:
    before = counts(served)
    served.predict({"entity_id": "nobody", "now": NOON_US}, {"entity_id": f"u{ONE}"})
    served.predict({"entity_id": 1})
    served.post(INFER, {})
    after = counts(served)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    served_as = 'model="churn",revision="stable"'
    assert grown('plumb_requests_total{model="churn",outcome="ok",revision="stable"}') == 1
    assert grown('plumb_requests_total{model="churn",outcome="bad_request",revision="stable"}') == 2
    assert grown(f"plumb_entities_total{{{served_as}}}") == 2
    assert grown(f"plumb_cold_entities_total{{{served_as}}}") == 1
    assert grown('plumb_degraded_entities_total{model="churn",reason="stale_state",revision="stable"}') == 1
    for stage in ("queue", "lookup", "graph", "total"):
        assert grown(f'plumb_stage_seconds_count{{{served_as},stage="{stage}"}}') == 1


def test_concurrent_requests_get_their_own_answers(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=30) as client:

        def ask(i: int) -> tuple[float, float]:
            body = {"instances": [{"entity_id": f"u{i}", "now": NOON_US, "platform": "x" * (i % 9)}]}
            reply = client.post("/v1/models/churn:predict", json=body).json()
            return reply["predictions"][0]["score"], expected_score(i, i % 9)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, [i for i in KNOWN for _ in range(2)]))
    assert all(got == wanted for got, wanted in answers)


def test_nothing_is_logged_for_any_of_this(served: Served) -> None:
    served.predict({"entity_id": 1})
    assert "Traceback" not in served.log.read_text()
    assert "entity_id" not in served.log.read_text()


def test_a_server_told_to_stop_answers_what_it_has_begun_and_exits_cleanly(serve_again: Callable[..., Any]) -> None:
    body = {
        "instances": [{"entity_id": f"u{i}", "now": NOON_US} for _ in range(25) for i in KNOWN],
        "parameters": {"features": True},
    }
    with serve_again("--version", "1") as running, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(running.post, "/v1/models/churn:predict", body)
        while not counts(running)['plumb_requests_in_progress{model="churn",revision="stable"}']:
            time.sleep(0.005)
        running.process.send_signal(signal.SIGTERM)
        assert len(pending.result().json()["predictions"]) == 25 * len(KNOWN)
        assert running.process.wait(timeout=20) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(running.url)
    assert running.log.read_text().count("Traceback") == 0
