"""Submit a training pipeline to a cluster: its version once, then a run of it or a schedule.

Submitting the same twice changes nothing: a version is named by what it does, and a schedule of the same version, time
and parameters is left alone. A schedule names no data: each run trains on what is known when it starts, and the champion
stays unless it is beaten.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kfp_server_api as api

from features.errors import explain
from pipelines.cluster import Address, AlreadyThere, Cluster
from pipelines.compile import pipeline_hash
from pipelines.errors import SubmissionError

PIPELINE: Final = "plumbline-training"
DESCRIPTION: Final = "Plumbline: train a model as known at a time; register it if it is blessed."
HASH_CHARS: Final = 12
MAX_CONCURRENCY: Final = 1
"""A run that takes longer than the time between two must not have a second one beside it: both would judge one champion."""


@dataclass(frozen=True)
class Submission:
    """What is submitted.

    Attributes:
        model: name of a model spec.
        text: the compiled pipeline.
        code: as ``components.code.code_version`` gives it.
        parameters: the pipeline's arguments.
        cron: six fields, checked; empty for one run now.
        started_at: ISO 8601; names the one run.
        service_account: Kubernetes account of the steps; empty for the cluster's default.
    """

    model: str
    text: str
    code: Mapping[str, str | bool | None]
    parameters: Mapping[str, Any]
    cron: str
    started_at: str
    service_account: str = ""

    @property
    def version_name(self) -> str:
        """Package version and content of the pipeline: equal names run equal pipelines in the same image."""
        return f"{self.code['package'] or 'unreleased'}-{pipeline_hash(self.text)[:HASH_CHARS]}"

    @property
    def version_description(self) -> str:
        """The commit that it was first submitted from."""
        state = ", with changes that are not committed" if self.code["git_dirty"] else ""
        return f"commit {self.code['git_sha']}{state}" if self.code["git_sha"] else "submitted outside a checkout"


@dataclass(frozen=True)
class Submitted:
    """What the cluster now has.

    Attributes:
        pipeline_id, version_id, version_name: the pipeline version.
        uploaded: whether it was new.
        kind: ``run`` or ``schedule``.
        id, name: of the run or the schedule.
        action: ``created``, ``replaced``, or ``unchanged`` where the schedule was there already.
    """

    pipeline_id: str
    version_id: str
    version_name: str
    uploaded: bool
    kind: str
    id: str
    name: str
    action: str


def submit(address: Address, submission: Submission, *, replace: bool = False) -> Submitted:
    """Bring the pipeline's version to a cluster and start a run or a schedule of it.

    Args:
        replace: end another schedule of this model, once the new one is there.
    Raises:
        ClusterUnavailable: it does not answer.
        SubmissionError: it refuses, or has another schedule of this model and ``replace`` is not set.
    """
    cluster = Cluster(address)
    pipeline_id, version, uploaded = bring_version(cluster, submission)
    experiment_id = cluster.find_or_create_experiment(f"plumbline-{submission.model}").experiment_id
    common = {
        "experiment_id": experiment_id,
        "pipeline_version_reference": api.V2beta1PipelineVersionReference(pipeline_id, version.pipeline_version_id),
        "runtime_config": api.V2beta1RuntimeConfig(parameters=dict(submission.parameters)),
        "service_account": submission.service_account or None,
    }
    if submission.cron:
        kind, (made, action) = "schedule", bring_schedule(cluster, submission, common, replace=replace)
        made_id = made.recurring_run_id
    else:
        run = api.V2beta1Run(display_name=f"{submission.model}-{submission.started_at}", **common)
        kind, made, action = "run", cluster.create_run(run), "created"
        made_id = made.run_id
    names = (submission.version_name, uploaded, kind, made_id, made.display_name, action)
    return Submitted(pipeline_id, version.pipeline_version_id, *names)


def bring_version(cluster: Cluster, submission: Submission) -> tuple[str, Any, bool]:
    """The pipeline's id, this version of it, and whether it had to be uploaded."""
    pipeline = cluster.find_pipeline(PIPELINE)
    if pipeline is None:
        pipeline = cluster.create_pipeline(PIPELINE, DESCRIPTION)
    pipeline_id, name = pipeline.pipeline_id, submission.version_name
    version = cluster.find_version(pipeline_id, name)
    if version is not None:
        return pipeline_id, version, False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.yaml"
        path.write_text(submission.text, encoding="utf-8")
        try:
            return pipeline_id, cluster.upload_version(pipeline_id, name, submission.version_description, path), True
        except AlreadyThere:  # somebody else has uploaded it since we looked
            version = cluster.find_version(pipeline_id, name)
            if version is None:
                raise
            return pipeline_id, version, False


def bring_schedule(
    cluster: Cluster, submission: Submission, common: Mapping[str, Any], *, replace: bool
) -> tuple[Any, str]:  # fmt: skip
    """The model's one schedule, and whether it was created, replaced or unchanged."""
    name = f"plumbline-{submission.model}"
    wanted = api.V2beta1RecurringRun(
        display_name=name, description=f"Trains {submission.model} on the latest snapshot; keeps the champion unless beaten.",
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=submission.cron)), no_catchup=True,
        max_concurrency=str(MAX_CONCURRENCY), mode=api.RecurringRunMode.ENABLE, **common,
    )  # fmt: skip
    present = cluster.list_schedules(common["experiment_id"], name)
    if len(present) == 1 and _facts(present[0]) == _facts(wanted):
        return present[0], "unchanged"
    if present and not replace:
        cron = present[0].trigger.cron_schedule.cron if present[0].trigger and present[0].trigger.cron_schedule else "no cron"
        raise SubmissionError(
            explain("model has another schedule", which=f"{name} ({present[0].recurring_run_id})", expected=submission.cron,
                    got=f"{cron}, of another version or parameters" if cron == submission.cron else cron,
                    next_step="pass --replace to end it")
        )  # fmt: skip
    made = cluster.create_schedule(wanted)
    for old in present:  # last, so that a failure on the way leaves a schedule too many rather than none
        cluster.delete_schedule(old)
    return made, "replaced" if present else "created"


def _facts(schedule: Any) -> tuple[Any, ...]:
    """What makes two schedules the same."""
    trigger, version = schedule.trigger, schedule.pipeline_version_reference
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else None
    parameters = schedule.runtime_config.parameters if schedule.runtime_config else {}
    return (
        cron, version and version.pipeline_version_id, dict(parameters or {}), bool(schedule.no_catchup),
        str(schedule.max_concurrency), schedule.mode, schedule.service_account or None,
    )  # fmt: skip
