"""What an InferenceService may say on this plane, and the one line that each mistake gets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.plane.document import Canary, Logger, Predictor, read_service
from inference.plane.errors import DocumentError

ROOT = Path(__file__).parents[3]
MODEL = {"modelFormat": {"name": "plumbline"}, "storageUri": "pvc://plumb-models/churn/1"}
CANARY = {
    "trafficPercent": 5,
    "predictor": {
        "name": "v2",
        "model": {"name": "kserve-container", "modelFormat": {"name": "plumbline"}, "storageUri": "pvc://plumb-models/churn/2"},
    },
}


def document() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "churn", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
            "spec": {"predictor": {"model": MODEL}, "canary": [CANARY]},
        }
    )


def changed(path: str, value: object) -> dict[str, Any]:
    """The document with one field set, or removed where the value is ``...``."""
    content: Any = document()
    place: Any = content
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content  # type: ignore[no-any-return]


def test_a_document_becomes_a_service() -> None:
    content = document()
    content["spec"]["predictor"] |= {"logger": {"mode": "all", "url": "http://127.0.0.1:9000/"}, "minReplicas": 1, "timeout": 7}
    content["spec"]["predictor"]["model"] |= {"args": ["--lookup-budget-ms", "20"], "env": [{"name": "A", "value": "1"}]}
    service = read_service(content)
    environment = (("A", "1"),)
    assert service.stable == Predictor("stable", "churn", 1, ("--lookup-budget-ms", "20"), environment, 7)
    # The canary inherits what it does not say, as KServe merges it over the stable predictor.
    assert service.canary == Canary(Predictor("v2", "churn", 2, ("--lookup-budget-ms", "20"), environment, 7), 5)
    assert service.logger == Logger("all", "http://127.0.0.1:9000/")
    assert (service.split, service.salt) == ("sticky", "v2")
    assert service.ignored == ("spec.predictor.minReplicas",)


def test_a_promoted_canary_is_the_same_process_in_another_role() -> None:
    before = read_service(document())
    promoted = document()
    promoted["spec"] = {"predictor": {**CANARY["predictor"]}, "canary": []}  # type: ignore[dict-item]
    after = read_service(promoted)
    assert before.canary is not None
    assert after.stable == before.canary.predictor
    assert after.canary is None


def test_annotations_choose_split_and_salt() -> None:
    content = document()
    content["metadata"]["annotations"] |= {"plumbline/split": "random", "plumbline/split-salt": "rollout-7"}
    assert (read_service(content).split, read_service(content).salt) == ("random", "rollout-7")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("kind", "Pod", "another kind: kind; expected InferenceService; got 'Pod'"),
        ("apiVersion", "v1", "apiVersion; expected serving.kserve.io/v1beta1"),
        ("metadata", None, "no metadata"),
        ("metadata.name", "Churn!", "not a name: metadata.name"),
        ("metadata.namespace", "prod", "no such namespace: metadata.namespace; expected default; got 'prod'"),
        ("metadata.annotations", {"a": 1}, "not texts by name"),
        ("metadata.annotations", {}, "canary needs Standard mode"),
        ("metadata.annotations.plumbline/split", "header", "unknown way to split"),
        ("spec", None, "not an object: spec"),
        ("spec.transformer", {}, "not supported on this plane: spec.transformer"),
        ("spec.predictor.canaryTrafficPercent", 10, "use spec.canary"),
        ("spec.predictor.replicas", 2, "unknown field: spec.predictor.replicas"),
        ("spec.predictor.timeout", 0, "not a duration: spec.predictor.timeout"),
        ("spec.predictor.timeout", True, "not a duration"),
        ("spec.predictor.model", [], "not an object: spec.predictor.model"),
        ("spec.predictor.model.name", "sidecar", "runs in another container"),
        ("spec.predictor.model.modelFormat.name", "sklearn", "unknown model format"),
        ("spec.predictor.model.storageUri", "s3://bucket/churn", "expected pvc://plumb-models/MODEL/VERSION"),
        ("spec.predictor.model.storageUri", "pvc://plumb-models/../1", "model cannot be found"),
        ("spec.predictor.model.args", "--port 1", "not a list of arguments"),
        ("spec.predictor.model.env", [{"name": "A", "valueFrom": {}}], "unknown field: spec.predictor.model.env[0].valueFrom"),
        ("spec.predictor.model.env", [{"value": "A"}], "variable has no name"),
        ("spec.predictor.logger", {"url": "http://sink"}, "unknown logger mode"),
        ("spec.predictor.logger", {"mode": "all", "url": "sink:9"}, "logger has no usable address"),
        ("spec.predictor.logger", {"mode": "all", "url": "http://sink:x/"}, "logger has no usable address"),
        ("spec.canary", [CANARY, CANARY], "too many canaries: spec.canary; expected a list of at most one canary; got 2"),
        ("spec.canary.0.trafficPercent", 101, "not a share of traffic"),
        ("spec.canary.0.trafficPercent", True, "not a share of traffic"),
        ("spec.canary.0.trafficPercent", 2.5, "not a share of traffic"),
        ("spec.canary.0.trafficPercent", ..., "got None"),
        ("spec.canary.0.predictor.name", "stable", "two revisions have one name"),
        ("spec.canary.0.predictor.name", ..., "not a name: spec.canary[0].predictor.name"),
        ("spec.canary.0.predictor.scaleTarget", 5, "canary scales by itself"),
        ("spec.canary.0.predictor.logger", {}, "canary has a logger of its own"),
        ("spec.canary.0.predictor.model.name", ..., "runs in another container: spec.canary[0].predictor.model.name"),
    ],
)
def test_a_mistake_is_named_in_one_line(path: str, value: object, expected: str) -> None:
    with pytest.raises(DocumentError) as raised:
        read_service(changed(path, value))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_shipped_service_can_be_run() -> None:
    shipped = sorted((ROOT / "manifests" / "services").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert read_service(yaml.safe_load(path.read_text())).stable.version == 1
