from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from kserve import InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

from features.declarations import Field
from inference.errors import RequestError
from inference.instances import decode_v1
from inference.requests import RequestForm
from inference.tensors import decode_v2

FORM = RequestForm((Field("platform", "string", "unknown"), Field("slot", "int64", 7)), max_entities=3, max_explained=2)
CLOCK_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z


def tensor(name: str, datatype: str, values: list[Any], *, shape: list[int] | None = None, binary: bool = False) -> InferInput:
    made = InferInput(name, shape or [len(values)], datatype, None if binary else values)
    if binary:
        dtype = object if datatype == "BYTES" else np.int64
        made.set_data_from_numpy(np.array(values, dtype=dtype), binary_data=True)
    return made


def v2(*tensors: InferInput, **extra: Any) -> InferRequest:
    return InferRequest("m", list(tensors), **extra)


def test_an_absent_field_takes_its_default_and_an_absent_now_the_clock() -> None:
    decoded = decode_v1({"instances": [{"entity_id": "a"}, {"entity_id": "b", "platform": "ios", "slot": 1}]}, FORM, CLOCK_US)
    assert decoded.entity_ids == ["a", "b"]
    assert decoded.now_us == [CLOCK_US, CLOCK_US]
    assert decoded.fields == {"platform": ["unknown", "ios"], "slot": [7, 1]}
    assert decoded.with_features is False


@pytest.mark.parametrize(
    "now", [CLOCK_US, "2025-03-01T12:00:00Z", "2025-03-01T13:00:00+01:00", "2025-03-01T12:00:00.000000+00:00"]
)
def test_now_is_microseconds_or_text_with_a_zone(now: object) -> None:
    assert decode_v1({"instances": [{"entity_id": "a", "now": now}]}, FORM, 0).now_us == [CLOCK_US]


def test_a_time_in_text_keeps_its_microsecond() -> None:
    body = {"instances": [{"entity_id": "a", "now": "2025-03-01T12:00:00.000001Z"}]}
    assert decode_v1(body, FORM, 0).now_us == [CLOCK_US + 1]


def test_a_body_may_come_as_bytes() -> None:
    body = orjson.dumps({"instances": [{"entity_id": "ü"}], "parameters": {"features": True}})
    decoded = decode_v1(body, FORM, CLOCK_US)
    assert (decoded.entity_ids, decoded.with_features) == (["ü"], True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", "body is no JSON"),
        ([], "not a JSON object.*got list"),
        ({}, "instances are missing"),
        ({"instances": {"entity_id": "a"}}, "instances are missing.*got dict"),
        ({"instances": []}, "wrong number of entities.*1 to 3; got 0"),
        ({"instances": [{"entity_id": "a"}] * 4}, "1 to 3; got 4"),
        ({"instances": ["a"]}, r"instance is no object: instances\[0\].*got str"),
        ({"instances": [{"entity_id": "a"}, {"platform": "ios"}]}, r"entity_id is missing: instances\[1\]"),
        ({"instances": [{"entity_id": "a", "plattform": "ios"}]}, "unknown request field: 'plattform'.*platform, slot"),
        ({"instances": [{"entity_id": "a", "state": "x"}]}, "unknown request field: 'state'"),
        ({"instances": [{"entity_id": 7}]}, "entity_id of row 0; expected text; got int 7"),
        ({"instances": [{"entity_id": None}]}, "expected text; got NoneType"),
        ({"instances": [{"entity_id": "a", "platform": 1}]}, "platform of row 0; expected text"),
        ({"instances": [{"entity_id": "a", "platform": None}]}, "platform of row 0; expected text"),
        ({"instances": [{"entity_id": "a", "slot": "1"}]}, "slot of row 0; expected a 64-bit integer; got str"),
        ({"instances": [{"entity_id": "a", "slot": True}]}, "expected a 64-bit integer; got bool"),
        ({"instances": [{"entity_id": "a", "slot": 1.0}]}, "expected a 64-bit integer; got float"),
        ({"instances": [{"entity_id": "a", "slot": 1 << 63}]}, "expected a 64-bit integer"),
        ({"instances": [{"entity_id": "a", "now": "2025-03-01T12:00:00"}]}, "now is no usable time.*got no time zone"),
        ({"instances": [{"entity_id": "a", "now": "yesterday"}]}, "now is no usable time.*got Invalid isoformat"),
        ({"instances": [{"entity_id": "a", "now": 1.5}]}, "now is no usable time.*got float"),
        ({"instances": [{"entity_id": "a", "now": None}]}, "now is no usable time.*got NoneType"),
        ({"instances": [{"entity_id": "a", "now": True}]}, "now is no usable time.*got bool"),
        ({"instances": [{"entity_id": "a", "now": CLOCK_US // 1_000_000}]}, "before 1990 or after 2100"),
        ({"instances": [{"entity_id": "a", "now": CLOCK_US * 1_000}]}, "before 1990 or after 2100"),
        ({"instances": [{"entity_id": "a", "now": -1}]}, "before 1990 or after 2100"),
        ({"instances": [{"entity_id": "a"}], "parameters": {"explian": True}}, "unknown name: 'explian' in parameters"),
        (
            {"instances": [{"entity_id": "a"}], "parameters": {"explain": 1}},
            "wrong type: explain; expected true or false; got 1",
        ),
        ({"instances": [{"entity_id": "a"}] * 3, "parameters": {"explain": True}}, "too many explanations.*1 to 2.*got 3"),
        ({"instances": [{"entity_id": "a"}], "parameters": {"features": 1}}, "expected true or false; got 1"),
        ({"instances": [{"entity_id": "a"}], "parameters": [1]}, "not a JSON object: parameters"),
        ({"instances": [{"entity_id": "a"}], "signature_name": "x"}, "unknown name: 'signature_name' in body"),
    ],
)
def test_a_v1_body_of_another_form_is_refused_in_one_line(body: object, expected: str) -> None:
    with pytest.raises(RequestError, match=expected) as caught:
        decode_v1(body, FORM, CLOCK_US)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("next: correct the request")


@pytest.mark.parametrize("binary", [False, True])
def test_v2_tensors_mean_the_same_as_a_v1_body(binary: bool) -> None:
    tensors = [
        tensor("entity_id", "BYTES", ["é", "b"], binary=binary),
        tensor("now", "INT64", [CLOCK_US, CLOCK_US + 1], binary=binary),
        tensor("slot", "INT64", [1, 2], binary=binary),
    ]
    rows = [{"entity_id": "é", "now": CLOCK_US, "slot": 1}, {"entity_id": "b", "now": CLOCK_US + 1, "slot": 2}]
    body = {"instances": rows, "parameters": {"features": True}}
    assert decode_v2(v2(*tensors, parameters={"features": True}), FORM, 0) == decode_v1(body, FORM, 0)


def test_bytes_and_text_give_the_same_id() -> None:
    assert decode_v2(v2(tensor("entity_id", "BYTES", ["é".encode(), "é"])), FORM, CLOCK_US).entity_ids == ["é", "é"]


def test_a_column_vector_is_taken_like_a_vector() -> None:
    for values in ([["a"], ["b"]], ["a", "b"]):
        assert decode_v2(v2(tensor("entity_id", "BYTES", values, shape=[2, 1])), FORM, CLOCK_US).entity_ids == ["a", "b"]


def test_asking_for_a_feature_output_asks_for_the_features() -> None:
    request = v2(tensor("entity_id", "BYTES", ["a"]), request_outputs=[RequestedOutput("finished")])
    assert decode_v2(request, FORM, CLOCK_US).with_features is True


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"explain": True}},
        {"request_outputs": [RequestedOutput("contributions")]},
        {"request_outputs": [RequestedOutput("base")]},
    ],
)
def test_an_explanation_is_asked_for_by_parameter_or_by_output(asked: dict[str, Any]) -> None:
    decoded = decode_v2(v2(tensor("entity_id", "BYTES", ["a"]), **asked), FORM, CLOCK_US)
    assert (decoded.with_explanation, decoded.with_features) == (True, False)
    decoded = decode_v1({"instances": [{"entity_id": "a"}] * 2, "parameters": {"explain": True}}, FORM, CLOCK_US)
    assert (decoded.with_explanation, decoded.with_features) == (True, False)
    assert decode_v1({"instances": [{"entity_id": "a"}] * 3}, FORM, CLOCK_US).with_explanation is False


ID = tensor("entity_id", "BYTES", ["a"])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (v2(), "input is missing: entity_id"),
        (v2(tensor("slot", "INT64", [1])), "input is missing: entity_id.*got inputs slot"),
        (v2(ID, ID), "input is given twice: entity_id"),
        (v2(ID, tensor("state", "BYTES", ["x"])), "unknown request field: 'state'"),
        (v2(ID, tensor("slot", "INT32", [1])), "input has a wrong datatype: slot; expected INT64; got INT32"),
        (v2(ID, tensor("now", "BYTES", ["2025"])), "wrong datatype: now"),
        (v2(tensor("entity_id", "INT64", [1])), "wrong datatype: entity_id; expected BYTES; got INT64"),
        (v2(ID, tensor("slot", "INT64", [1, 2])), "wrong length: slot; expected 1 values"),
        (v2(tensor("entity_id", "BYTES", ["a", "b"], shape=[3])), "declared shape.*expected 3 values; got 2"),
        (v2(tensor("entity_id", "BYTES", ["a", "b"], shape=[1, 2])), r"wrong shape.*got \[1, 2\]"),
        (v2(tensor("entity_id", "BYTES", ["a"], shape=[1, 1, 1])), "wrong shape"),
        (v2(tensor("entity_id", "BYTES", [], shape=[0])), "wrong number of entities.*got 0"),
        (v2(tensor("entity_id", "BYTES", ["a"] * 4)), "1 to 3; got 4"),
        (v2(tensor("entity_id", "BYTES", [1])), "entity_id of row 0; expected text; got int"),
        (v2(tensor("entity_id", "BYTES", [b"\xff\xfe"])), "no UTF-8 text"),
        (v2(ID, tensor("slot", "INT64", ["1"])), "slot of row 0; expected a 64-bit integer"),
        (v2(ID, tensor("now", "INT64", [5])), "before 1990"),
        (v2(ID, parameters={"feature": True}), "unknown name: 'feature' in parameters"),
        (v2(ID, parameters={"features": "yes"}), "expected true or false"),
        (v2(tensor("entity_id", "BYTES", ["a"] * 3), parameters={"explain": True}), "too many explanations"),
    ],
)
def test_v2_tensors_of_another_form_are_refused_in_one_line(request_: InferRequest, expected: str) -> None:
    with pytest.raises(RequestError, match=expected) as caught:
        decode_v2(request_, FORM, CLOCK_US)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"\x05\x00\x00\x00ab", b"\x05", b""])
def test_packed_contents_that_do_not_fit_are_refused(raw: bytes) -> None:
    damaged = InferInput("entity_id", [1], "BYTES")
    damaged._raw_data = raw
    with pytest.raises(RequestError, match="cannot be unpacked|declared shape"):
        decode_v2(v2(damaged), FORM, CLOCK_US)
