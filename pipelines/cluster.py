"""A Kubeflow Pipelines server, through KFP's own client of its API; what goes wrong becomes one line.

Nothing is tried twice here: a failed call leaves the cluster as it says, and submitting again continues from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kfp_server_api as api
import urllib3

from features.errors import explain
from pipelines.errors import ClusterUnavailable, SubmissionError

PAGE_SIZE: Final = 100
TIMEOUT_S: Final = 60
CONFLICT: Final = 409
REASON_CHARS: Final = 300


@dataclass(frozen=True)
class Address:
    """Where a cluster's API is, and as whom to ask.

    Attributes:
        host: URL, such as ``https://kubeflow.example/pipeline``.
        token: bearer token; empty for none.
        namespace: whose pipelines, of a cluster with several users; empty for a cluster with one.
    """

    host: str
    token: str = ""
    namespace: str = ""


class Cluster:
    """The calls that a submission needs, each made once."""

    def __init__(self, address: Address) -> None:
        configuration = api.Configuration(host=address.host.rstrip("/"))
        configuration.retries = False
        if address.token:
            configuration.api_key["authorization"] = address.token
            configuration.api_key_prefix["authorization"] = "Bearer"
        self._address = address
        self._client = api.ApiClient(configuration)
        self._pipelines = api.PipelineServiceApi(self._client)
        self._namespace = {"namespace": address.namespace} if address.namespace else {}

    def find_pipeline(self, name: str) -> Any | None:
        """The pipeline of that name, None where there is none."""
        listing = self._pipelines.pipeline_service_list_pipelines
        return self._only(self._list(listing, "pipelines", filter=_named(name), **self._namespace), f"pipeline {name!r}")

    def create_pipeline(self, name: str, description: str) -> Any:
        """A pipeline without versions."""
        body = api.V2beta1Pipeline(display_name=name, name=name, description=description, **self._namespace)
        with self._telling(f"pipeline {name!r}"):
            return self._pipelines.pipeline_service_create_pipeline(pipeline=body, _request_timeout=TIMEOUT_S)

    def find_version(self, pipeline_id: str, name: str) -> Any | None:
        """The pipeline's version of that name, None where there is none."""
        listing = self._pipelines.pipeline_service_list_pipeline_versions
        found = self._list(listing, "pipeline_versions", pipeline_id=pipeline_id, filter=_named(name))
        return self._only(found, f"pipeline version {name!r}")

    def upload_version(self, pipeline_id: str, name: str, description: str, path: Path) -> Any:
        """The compiled pipeline in a file as a new version.

        Raises:
            AlreadyThere: there is a version of that name.
        """
        uploads = api.PipelineUploadServiceApi(self._client)
        words = {"name": name, "display_name": name, "description": description, "pipelineid": pipeline_id}
        with self._telling(f"pipeline version {name!r}"):
            return uploads.upload_pipeline_version(str(path), **words, _request_timeout=TIMEOUT_S)

    def find_or_create_experiment(self, name: str) -> Any:
        """The experiment of that name, which groups a model's runs."""
        experiments = api.ExperimentServiceApi(self._client)
        listing = experiments.experiment_service_list_experiments
        which = f"experiment {name!r}"
        found = self._only(self._list(listing, "experiments", filter=_named(name), **self._namespace), which)
        if found is not None:
            return found
        with self._telling(which):
            body = api.V2beta1Experiment(display_name=name, **self._namespace)
            return experiments.experiment_service_create_experiment(experiment=body, _request_timeout=TIMEOUT_S)

    def create_run(self, run: Any) -> Any:
        """Start a run."""
        with self._telling(f"run {run.display_name!r}"):
            return api.RunServiceApi(self._client).run_service_create_run(run=run, _request_timeout=TIMEOUT_S)

    def list_schedules(self, experiment_id: str, name: str) -> list[Any]:
        """Recurring runs of that name in an experiment."""
        listing = api.RecurringRunServiceApi(self._client).recurring_run_service_list_recurring_runs
        return self._list(listing, "recurring_runs", experiment_id=experiment_id, filter=_named(name))

    def create_schedule(self, schedule: Any) -> Any:
        """Start a recurring run."""
        schedules = api.RecurringRunServiceApi(self._client)
        with self._telling(f"schedule {schedule.display_name!r}"):
            return schedules.recurring_run_service_create_recurring_run(recurring_run=schedule, _request_timeout=TIMEOUT_S)

    def delete_schedule(self, schedule: Any) -> None:
        """End a recurring run."""
        schedules = api.RecurringRunServiceApi(self._client)
        with self._telling(f"schedule {schedule.display_name!r}"):
            schedules.recurring_run_service_delete_recurring_run(schedule.recurring_run_id, _request_timeout=TIMEOUT_S)

    def _list(self, listing: Callable[..., Any], kind: str, **words: Any) -> list[Any]:
        """All pages."""
        entries: list[Any] = []
        token = ""
        while True:
            with self._telling(kind.replace("_", " ")):
                page = listing(page_size=PAGE_SIZE, page_token=token, _request_timeout=TIMEOUT_S, **words)
            entries += getattr(page, kind) or []
            token = page.next_page_token or ""
            if not token:
                return entries

    def _only(self, entries: list[Any], which: str) -> Any | None:
        if len(entries) > 1:
            raise SubmissionError(
                explain("name is taken more than once", which=f"{which} on {self._address.host}", expected="one at most",
                        got=str(len(entries)), next_step="delete or rename all but one")
            )  # fmt: skip
        return entries[0] if entries else None

    @contextmanager
    def _telling(self, which: str) -> Iterator[None]:
        """Turn the client's exceptions into ours."""
        which = f"{which} on {self._address.host}"
        try:
            yield
        except api.ApiException as error:
            got = f"{error.status} {_reason_of(error)}"
            if error.status == CONFLICT:
                line = explain("name is taken", which=which, expected="a new name", got=got, next_step="submit again to use it")
                raise AlreadyThere(line) from error
            if error.status in (401, 403):
                raise SubmissionError(
                    explain("cluster refuses us", which=which, expected="a token that may do this", got=got,
                            next_step="pass a valid one with --token-file, or the right --namespace")
                ) from error  # fmt: skip
            if error.status in (408, 429) or error.status >= 500:
                raise ClusterUnavailable(
                    explain("cluster failed", which=which, expected="a reply", got=got, next_step="submit again later")
                ) from error
            raise SubmissionError(
                explain("cluster does not accept this", which=which, expected="a valid request", got=got,
                        next_step="check --host, and that the server speaks KFP's v2beta1 API")
            ) from error  # fmt: skip
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterUnavailable(
                explain("cluster does not answer", which=which, expected="KFP's API", got=str(reason)[:REASON_CHARS],
                        next_step="check --host and the network, then submit again")
            ) from error  # fmt: skip


class AlreadyThere(SubmissionError):
    """The cluster has something of that name."""


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def _reason_of(error: Any) -> str:
    """The server's own message where it sent one; its upload service words replies otherwise than the rest."""
    try:
        content = json.loads(error.body)
        message = next(content[key] for key in ("message", "error_message", "error") if content.get(key))
    except (TypeError, ValueError, AttributeError, StopIteration):
        message = error.body or error.reason or "no reason"
    return str(message)[:REASON_CHARS]
