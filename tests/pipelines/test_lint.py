"""Each mutation below is one that a KFP server refuses; the unchanged pipeline is one that it accepts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from pipelines.compile import COMPILED
from pipelines.lint import lint

Documents = list[dict[str, Any]]


@pytest.fixture(scope="module")
def documents() -> Documents:
    return list(yaml.safe_load_all((COMPILED / "training.yaml").read_text(encoding="utf-8")))


def mutate(documents: Documents, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> list[str]:
    pipeline, platform = copy.deepcopy(documents)
    change(pipeline, platform)
    return lint(yaml.safe_dump_all([pipeline, platform]))


def tasks_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    tasks: dict[str, Any] = pipeline["root"]["dag"]["tasks"]
    return tasks


def rename_pipeline(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    pipeline["pipelineInfo"]["name"] = "Training_1"


def age_schema(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    pipeline["schemaVersion"] = "2.0.0"


def misspell_field(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["train"]["cachingOption"] = {}


def drop_component(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    del pipeline["components"]["comp-train"]


def drop_executor(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    del pipeline["deploymentSpec"]["executors"]["exec-register"]


def drop_image(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    del pipeline["deploymentSpec"]["executors"]["exec-gate"]["container"]["image"]


def drop_argument(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    del tasks_of(pipeline)["fit-graph"]["inputs"]["artifacts"]["rows"]


def misname_output(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["fit-graph"]["inputs"]["artifacts"]["rows"]["taskOutputArtifact"]["outputArtifactKey"] = "row"


def misname_producer(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["fit-graph"]["inputs"]["artifacts"]["rows"]["taskOutputArtifact"]["producerTask"] = "rows"


def misname_parameter(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["train"]["inputs"]["parameters"]["seed"]["componentInputParameter"] = "seeds"


def close_circle(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["training-rows"]["dependentTasks"] = ["gate"]


def wait_for_nobody(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    tasks_of(pipeline)["train"]["dependentTasks"] = ["fit-graph", "distill"]


def nest_in_itself(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    inner = pipeline["components"]["comp-condition-1"]["dag"]["tasks"]
    inner["again"] = copy.deepcopy(tasks_of(pipeline)["condition-1"])


def only_exit_tasks(pipeline: dict[str, Any], _: dict[str, Any]) -> None:
    inner = pipeline["components"]["comp-condition-1"]["dag"]["tasks"]
    inner["register"]["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def settings_for_nobody(_: dict[str, Any], platform: dict[str, Any]) -> None:
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-distill"] = executors["exec-train"]


def misspell_setting(_: dict[str, Any], platform: dict[str, Any]) -> None:
    platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["pvcMounts"] = []


MUTATIONS = {
    rename_pipeline: "no DNS name",
    age_schema: "schema version",
    misspell_field: "not the pipeline format",
    drop_component: "component 'comp-train' is not defined",
    drop_executor: "executor 'exec-register' is not defined",
    drop_image: "names no image",
    drop_argument: "artifact 'rows' is not given",
    misname_output: "has no output 'row'",
    misname_producer: "comes from 'rows', which is no task here",
    misname_parameter: "no parameter 'seeds'",
    close_circle: "wait for each other",
    wait_for_nobody: "waits for 'distill'",
    nest_in_itself: "contains itself",
    only_exit_tasks: "nothing but exit tasks",
    settings_for_nobody: "'exec-distill', which is no executor",
    misspell_setting: "not the pipeline format",
}


def test_the_compiled_pipeline_has_no_fault(documents: Documents) -> None:
    assert mutate(documents, lambda pipeline, platform: None) == []


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_a_mutation_by_hand_is_caught_and_named(documents: Documents, change: Callable[..., None]) -> None:
    assert any(MUTATIONS[change] in fault for fault in mutate(documents, change))


def test_text_that_is_no_yaml_and_two_pipelines_in_one_file_are_faults(documents: Documents) -> None:
    assert lint("a: [") != []
    assert lint("") == ["0 pipelines and 0 platform documents; expected 1 and at most 1"]
    assert lint(yaml.safe_dump_all([documents[0], documents[0]])) != []
