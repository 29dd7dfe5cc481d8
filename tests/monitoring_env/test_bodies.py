"""Requests and replies of every protocol become the same columns."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from monitoring.drift.bodies import read_body
from monitoring.errors import UnreadableBody


def pack_texts(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def test_v1_instances_are_columns_with_none_where_there_is_no_value():
    body = read_body(b'{"instances": [{"id": "a", "x": 1, "ok": true}, {"id": "b", "y": [1, 2], "x": null}]}')
    assert body.columns == {"id": ["a", "b"], "x": [1.0, None], "ok": [1.0, None]}
    assert body.rows == 2


def test_v1_lists_and_scalars_have_columns_by_place():
    assert read_body(b'{"instances": [[1, "a"], [2, "b"]]}').columns == {"value_0": [1.0, 2.0], "value_1": ["a", "b"]}
    assert read_body(b'{"predictions": [0.5, 0.25]}').columns == {"value": [0.5, 0.25]}


def test_a_reply_names_its_version():
    body = read_body(b'{"predictions": [{"entity_id": "u1", "score": 0.5, "degraded": null}], "model_version": "7"}')
    assert body.model_version == "7"
    assert body.columns["score"] == [0.5]


def test_v2_tensors_are_columns_and_wide_ones_take_their_names():
    tensors = [
        {"name": "score", "shape": [2], "datatype": "FP32", "data": [0.5, 0.25]},
        {"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [[1, 2], [3, 4]], "parameters": {"names": "a,b"}},
        {"name": "z", "shape": [2, 2], "datatype": "FP64", "data": [5, 6, 7, 8]},
        {"name": "why", "shape": [2, 1], "datatype": "BYTES", "data": ["", "store"]},
        {"name": "other", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
    ]
    body = read_body(json.dumps({"model_version": "3", "outputs": tensors}).encode())
    assert body.columns == {
        "score": [0.5, 0.25], "a": [1.0, 3.0], "b": [2.0, 4.0], "z_0": [5.0, 7.0], "z_1": [6.0, 8.0], "why": ["", "store"],
    }  # fmt: skip
    assert (body.rows, body.model_version) == (2, "3")


def test_v2_binary_tensors_equal_those_in_json_bytes_included():
    # No header says where the JSON ends: events do not carry it.
    parts = [
        ("x", "FP32", [2, 2], np.array([1.5, -2, 0, 3], "<f4").tobytes()),
        ("n", "INT64", [2], np.array([2**40, -1], "<i8").tobytes()),
        ("flag", "BOOL", [2], b"\x01\x00"),
        ("half", "FP16", [2], np.array([0.5, 2], "<f2").tobytes()),
        ("city", "BYTES", [2], pack_texts("Köln", "{}")),
    ]
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in parts
    ]
    body = read_body(json.dumps({"inputs": described}).encode() + b"".join(data for *_, data in parts))
    assert body.columns == {
        "x_0": [1.5, 0.0], "x_1": [-2.0, 3.0], "n": [2.0**40, -1.0], "flag": [1.0, 0.0], "half": [0.5, 2.0],
        "city": ["Köln", "{}"],
    }  # fmt: skip


def test_binary_and_json_tensors_may_stand_side_by_side():
    described = [
        {"name": "a", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
        {"name": "b", "datatype": "FP32", "shape": [1], "data": [1.0]},
        {"name": "c", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1}},
    ]
    body = read_body(json.dumps({"inputs": described}).encode() + pack_texts("x") + b"\x07")
    assert body.columns == {"a": ["x"], "b": [1.0], "c": [7.0]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff\xfe", b"[]", b"{}", b'{"inputs": [{"name": "x"}]}', b'{"inputs": 3}',
        b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [-1, -2], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BF16", "parameters": {"binary_data_size": 2}}]}\x00\x00',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}\xff\0\0\0a',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [{"a": 1}]}]}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_body_is_refused_in_one_line(body):
    with pytest.raises(UnreadableBody, match=r"^body cannot be read: [^\n]+$"):
        read_body(body)
