"""Many candidates of one entity in a request: the answers are those of one instance a candidate."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from features.declarations import Field
from inference.errors import RequestError
from inference.instances import decode_v1
from inference.requests import RequestForm

NOW_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
INFER = "/v2/models/churn/infer"
FORM = RequestForm((Field("platform", "string", "unknown"), Field("slot", "int64", 7)), max_entities=5, max_explained=2)
PLATFORMS = ["ios", "android", "web", "x" * 9]
Served = Any


def test_candidates_are_columns_one_entity_after_another() -> None:
    body = {
        "instances": [
            {"entity_id": "a", "platform": "ios", "candidates": [{"slot": 1}, {"slot": 2, "platform": "web"}]},
            {"entity_id": "b"},
            {"entity_id": "c", "candidates": [{}]},
        ]
    }
    decoded = decode_v1(body, FORM, NOW_US)
    assert decoded.entity_ids == ["a", "b", "c"]
    assert decoded.fields == {"platform": ["ios", "web", "unknown", "unknown"], "slot": [1, 2, 7, 7]}
    assert (decoded.candidates, decoded.counts, decoded.rows) == ([2, None, 1], [2, 1, 1], 4)


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ({"candidates": []}, "candidates are no list of request fields"),
        ({"candidates": {"slot": 1}}, "candidates are no list"),
        ({"candidates": [{"slot": 1}, 2]}, "candidates of instances\\[1\\]"),
        ({"candidates": [{"entity_id": "b"}]}, "objects with platform, slot"),
        ({"candidates": [{"slot": 1}, {"slot": "2"}]}, "value has a wrong type: slot of row 2"),
        ({"candidates": [{"slot": True}]}, "wrong type: slot"),
        ({"candidates": [{"slot": 1 << 63}]}, "wrong type: slot"),
        ({"candidates": [{"platform": 5}]}, "wrong type: platform"),
        ({"candidates": [{}] * 5}, "wrong number of candidates: candidates; expected 1 to 5; got 6"),
    ],
)
def test_candidates_that_are_none_are_refused_in_one_line(instance: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        decode_v1({"instances": [{"entity_id": "a"}, {"entity_id": "b", **instance}]}, FORM, NOW_US)


@pytest.mark.parametrize("parameter", ["features", "explain"])
def test_features_and_explanations_are_not_given_by_candidate(parameter: str) -> None:
    body = {"instances": [{"entity_id": "a", "candidates": [{}]}], "parameters": {parameter: True}}
    with pytest.raises(RequestError, match="more than the scores of candidates"):
        decode_v1(body, FORM, NOW_US)


def plain(served: Served, entity_id: str) -> list[dict[str, Any]]:
    """One instance a candidate."""
    instances = [{"entity_id": entity_id, "now": NOW_US, "platform": platform} for platform in PLATFORMS]
    predictions: list[dict[str, Any]] = served.predict(*instances).json()["predictions"]
    return predictions


def test_scores_of_candidates_are_those_of_one_instance_each(served: Served) -> None:
    candidates = [{"platform": platform} for platform in PLATFORMS]
    asked = [{"entity_id": name, "now": NOW_US, "candidates": candidates} for name in ("u1", "nobody")]
    one, cold, single = served.predict(*asked, {"entity_id": "u2", "now": NOW_US, "platform": "ios"}).json()["predictions"]
    for prediction, name in ((one, "u1"), (cold, "nobody")):
        expected = plain(served, name)
        assert prediction["scores"] == [entry["score"] for entry in expected]
        assert prediction["within"] == {key: [entry["within"][key] for entry in expected] for key in ("7d", "30d")}
        assert {name: value for name, value in prediction.items() if name not in ("scores", "within")} == {
            name: value for name, value in expected[0].items() if name not in ("score", "within")
        }
    assert (single["score"], "scores" in single) == (3 / 8 + 3 / 1024, False)


def test_v2_takes_the_number_of_candidates_of_each_entity(served: Served) -> None:
    names, counts = ["u1", "u2"], [4, 2]
    tensors: list[tuple[str, str, list[Any]]] = [
        ("entity_id", "BYTES", names), ("now", "INT64", [NOW_US, NOW_US]), ("candidates", "INT64", counts),
        ("platform", "BYTES", [*PLATFORMS, "ios", "web"]),
    ]  # fmt: skip
    inputs = [{"name": name, "shape": [len(data)], "datatype": kind, "data": data} for name, kind, data in tensors]
    outputs = {output["name"]: output for output in served.post(INFER, {"inputs": inputs}).json()["outputs"]}
    expected = [entry["score"] for entry in (*plain(served, "u1"), *(plain(served, "u2")[place] for place in (0, 2)))]
    assert outputs["score"]["data"] == expected
    assert (outputs["score"]["shape"], outputs["within"]["shape"], outputs["cold"]["shape"]) == ([6], [6, 2], [2])
    for wrong in ([4, 1], [6], [0, 6]):
        inputs[2] = {"name": "candidates", "shape": [len(wrong)], "datatype": "INT64", "data": wrong}
        reply = served.post(INFER, {"inputs": inputs})
        assert reply.status_code == httpx.codes.BAD_REQUEST, reply.text


def test_every_candidate_is_counted_as_a_prediction(served: Served) -> None:
    def count(name: str) -> float:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}_total{{"))

    before = [count(name) for name in ("plumb_predictions", "plumb_entities")]
    served.predict({"entity_id": "u1", "candidates": [{"platform": platform} for platform in PLATFORMS]})
    grown = np.array([count(name) for name in ("plumb_predictions", "plumb_entities")]) - before
    assert grown.tolist() == [4, 1]
