"""What a KFP server would refuse in a compiled pipeline, found without a server.

The text is parsed strictly with the protocol buffers that the server uses, then every reference is followed: from tasks
to components, from components to executors, from inputs to the outputs or parent inputs they name, and from platform
settings to executors. It proves that a pipeline is well formed, not that it does what it should.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineDeploymentConfig, PipelineSpec, PlatformSpec

SCHEMA_VERSION: Final = "2.1.0"
LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
NAME: Final = re.compile(rf"{LABEL}(?:\.{LABEL})*")
RUN_AFTER_ALL: Final = 2
"""Trigger strategy of an exit task: it starts when everything upstream has ended, however it ended."""


def lint(text: str) -> list[str]:
    """Every fault of a compiled pipeline, one line each; empty if a server would accept it.

    Args:
        text: one pipeline document and at most one document of platform settings.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document]
        pipelines = [json_format.ParseDict(entry, PipelineSpec()) for entry in documents if "platforms" not in entry]
        platforms = [json_format.ParseDict(entry, PlatformSpec()) for entry in documents if "platforms" in entry]
        if len(pipelines) != 1 or len(platforms) > 1:
            return [f"{len(pipelines)} pipelines and {len(platforms)} platform documents; expected 1 and at most 1"]
        executors = _deployment(pipelines[0])
        return [*_faults_of_header(pipelines[0]), *_Walk(pipelines[0], executors).faults(),
                *(fault for platform in platforms for fault in _faults_of_platform(platform, executors))]  # fmt: skip
    except (yaml.YAMLError, json_format.ParseError) as error:
        return [" ".join(f"not the pipeline format: {error}".split())]


def _deployment(spec: PipelineSpec) -> PipelineDeploymentConfig:
    return json_format.ParseDict(json_format.MessageToDict(spec.deployment_spec), PipelineDeploymentConfig())


def _faults_of_header(spec: PipelineSpec) -> Iterator[str]:
    if spec.schema_version != SCHEMA_VERSION:
        yield f"schema version is {spec.schema_version!r}, expected {SCHEMA_VERSION}"
    if not NAME.fullmatch(spec.pipeline_info.name):
        yield f"pipeline name {spec.pipeline_info.name!r} is no DNS name"


def _faults_of_platform(platform: PlatformSpec, deployment: PipelineDeploymentConfig) -> Iterator[str]:
    for kind, settings in platform.platforms.items():
        for label, values in settings.deployment_spec.executors.items():
            if kind == "kubernetes":
                json_format.ParseDict(json_format.MessageToDict(values), KubernetesExecutorConfig())
            if label not in deployment.executors:
                yield f"{kind} settings for {label!r}, which is no executor"


@dataclass(frozen=True)
class _Walk:
    """Follows every reference from the root down."""

    spec: PipelineSpec
    deployment: PipelineDeploymentConfig

    def faults(self) -> Iterator[str]:
        yield from self._component("root", self.spec.root, ())

    def _component(self, where: str, component: Any, above: tuple[str, ...]) -> Iterator[str]:
        kind = component.WhichOneof("implementation")
        if kind == "executor_label":
            yield from self._executor(where, component.executor_label)
        elif kind == "dag":
            yield from self._dag(where, component, above)
        else:
            yield f"{where}: neither executor nor graph"

    def _executor(self, where: str, label: str) -> Iterator[str]:
        if label not in self.deployment.executors:
            yield f"{where}: executor {label!r} is not defined"
            return
        executor = self.deployment.executors[label]
        kind = executor.WhichOneof("spec")
        if kind not in ("container", "importer"):
            yield f"{where}: executor {label!r} is a {kind}, which no server runs"
        elif kind == "container" and not executor.container.image:
            yield f"{where}: executor {label!r} names no image"

    def _dag(self, where: str, component: Any, above: tuple[str, ...]) -> Iterator[str]:
        tasks = component.dag.tasks
        if all(task.trigger_policy.strategy == RUN_AFTER_ALL for task in tasks.values()):
            yield f"{where}: nothing but exit tasks"
        for name, task in tasks.items():
            here, reference = f"{where}/{name}", task.component_ref.name
            if reference not in self.spec.components:
                yield f"{here}: component {reference!r} is not defined"
            elif reference in above:
                yield f"{here}: component {reference!r} contains itself"
            else:
                target = self.spec.components[reference]
                yield from self._task(here, task, target, component)
                yield from self._component(here, target, (*above, reference))
        yield from _faults_of_order(where, tasks)

    def _task(self, where: str, task: Any, target: Any, parent: Any) -> Iterator[str]:
        if task.WhichOneof("iterator") == "artifact_iterator":
            yield f"{where}: loops over artifacts, which the Argo backend does not run"
        executor = self.deployment.executors.get(target.executor_label)
        if task.trigger_policy.condition and executor is not None and executor.WhichOneof("spec") == "importer":
            yield f"{where}: an importer cannot be conditional"
        loop_item = task.parameter_iterator.item_input if task.HasField("parameter_iterator") else ""
        for kind in ("parameter", "artifact"):
            given = getattr(task.inputs, f"{kind}s")
            for source in given.values():
                yield from self._source(where, kind, source, parent, loop_item)
            for name, wanted in getattr(target.input_definitions, f"{kind}s").items():
                has_default = kind == "parameter" and wanted.HasField("default_value")
                if not (name in given or name == loop_item or wanted.is_optional or has_default):
                    yield f"{where}: {kind} {name!r} is not given"

    def _source(self, where: str, kind: str, source: Any, parent: Any, loop_item: str) -> Iterator[str]:
        """Does the place exist that an input is taken from?"""
        origin = source.WhichOneof("kind")
        if origin == f"component_input_{kind}":
            name = getattr(source, origin)
            if name not in getattr(parent.input_definitions, f"{kind}s") and name != loop_item:
                yield f"{where}: the enclosing graph has no {kind} {name!r}"
        elif origin == f"task_output_{kind}":
            output = getattr(source, origin)
            producer = parent.dag.tasks.get(output.producer_task)
            if producer is None:
                yield f"{where}: {kind} comes from {output.producer_task!r}, which is no task here"
            elif getattr(output, f"output_{kind}_key") not in self._outputs(producer, kind):
                yield f"{where}: task {output.producer_task!r} has no output {getattr(output, f'output_{kind}_key')!r}"

    def _outputs(self, task: Any, kind: str) -> Mapping[str, Any]:
        component = self.spec.components.get(task.component_ref.name)  # [] would add what is missing
        return {} if component is None else getattr(component.output_definitions, f"{kind}s")


def _faults_of_order(where: str, tasks: Mapping[str, Any]) -> Iterator[str]:
    for name, task in tasks.items():
        for before in task.dependent_tasks:
            if before not in tasks:
                yield f"{where}/{name}: waits for {before!r}, which is no task here"
    try:
        TopologicalSorter({name: set(task.dependent_tasks) for name, task in tasks.items()}).prepare()
    except CycleError as error:
        yield f"{where}: tasks wait for each other: {' -> '.join(error.args[1])}"
