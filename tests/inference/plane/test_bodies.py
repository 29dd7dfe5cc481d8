"""Whom a body is about, and how a V1 request is divided and put together again."""

from __future__ import annotations

import orjson
import pytest

from inference.plane.bodies import entities_v1, first_entity_v2, join_replies, read_v1, take_rows


def test_instances_are_taken_by_rows_with_the_parameters_of_the_request() -> None:
    content = read_v1(b'{"instances": [{"entity_id": "a", "now": 1}, {"entity_id": "b"}, {}], "parameters": {"explain": true}}')
    assert content is not None
    assert entities_v1(content) == ["a", "b", None]
    assert orjson.loads(take_rows(content, [0, 2])) == {
        "instances": [{"entity_id": "a", "now": 1}, {}],
        "parameters": {"explain": True},
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"instances": 5}', b"\xff"])
def test_what_is_no_v1_request_names_nobody(body: bytes) -> None:
    assert read_v1(body) is None


def test_replies_are_joined_in_the_order_of_the_instances() -> None:
    first = orjson.dumps({"predictions": ["b", "d"], "model_name": "churn", "model_version": "2", "revision": "v2"})
    second = orjson.dumps({"predictions": ["a", "c"], "model_name": "churn", "model_version": "1", "revision": "stable"})
    assert orjson.loads(join_replies([("v2", [1, 3], first), ("stable", [0, 2], second)])) == {
        "predictions": ["a", "b", "c", "d"],
        "model_name": "churn",
        "model_version": "2",
        "revision": "v2,stable",
        "revisions": ["stable", "v2", "stable", "v2"],
    }


def test_the_first_entity_of_a_v2_request_is_found_in_json_and_in_binary() -> None:
    tensor = {"name": "entity_id", "datatype": "BYTES", "shape": [2, 1], "data": [["ä"], ["b"]]}
    assert first_entity_v2(orjson.dumps({"inputs": [{"name": "now", "data": [1, 2]}, tensor]}), None) == "ä"
    header = orjson.dumps(
        {
            "inputs": [
                {"name": "now", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
                {"name": "entity_id", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
            ]
        }
    )
    # "ä" is two bytes of UTF-8 behind four bytes of length.
    packed = (1).to_bytes(8, "little") + (2).to_bytes(4, "little") + "ä".encode()
    assert first_entity_v2(header + packed, len(header)) == "ä"
    assert first_entity_v2(header + packed[:-1], len(header)) is None


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"inputs": 3},
        {"inputs": [3]},
        {"inputs": [{"name": "entity_id"}]},
        {"inputs": [{"name": "entity_id", "data": [7]}]},
        {"inputs": [{"name": "entity_id", "data": [[]]}]},
    ],
)
def test_a_v2_request_without_a_readable_entity_names_nobody(content: object) -> None:
    assert first_entity_v2(orjson.dumps(content), None) is None
