"""Resources, retries and caching of every step: the one place that sets them."""

from dataclasses import dataclass
from typing import Final

from kfp import dsl, kubernetes

WORKSPACE_CLAIM: Final = "plumbline-workspace"
"""PersistentVolumeClaim with the workspace, for clusters; a local run uses the folder itself."""

WORKSPACE_MOUNT: Final = "/workspace"

CONTROL_SECRET: Final = "plumbline-control"
"""Secret whose key ``password`` is that of the control database, for clusters that keep it in PostgreSQL; its client reads
the variable, so that no password stands in a parameter. A cluster without it uses SQLite in the workspace."""


@dataclass(frozen=True)
class Profile:
    """What a step may use.

    Attributes:
        cpu: cores, requested and at most.
        memory: requested and at most, in Kubernetes notation (``4Gi``).
        timeout_s: a cluster ends the step after this many seconds.
        retries: how often a failed step starts again; steps write whole files or nothing, so that is safe.
        retry_after_s: seconds before it does.
        cache: off everywhere. KFP's key holds a step's arguments and image tag, but neither the workspace's content
            nor the code installed in the environment, so a hit could return the result of other data or other code.
    """

    cpu: str
    memory: str
    timeout_s: int
    retries: int = 1
    retry_after_s: int = 2
    cache: bool = False

    def apply(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Set all of it on one task of a pipeline and return the task."""
        task.set_cpu_request(self.cpu).set_cpu_limit(self.cpu)
        task.set_memory_request(self.memory).set_memory_limit(self.memory)
        task.set_retry(self.retries, backoff_duration=f"{self.retry_after_s}s")
        task.set_caching_options(self.cache)
        kubernetes.mount_pvc(task, pvc_name=WORKSPACE_CLAIM, mount_path=WORKSPACE_MOUNT)
        kubernetes.use_secret_as_env(task, CONTROL_SECRET, {"password": "PGPASSWORD"}, optional=True)
        return kubernetes.set_timeout(task, seconds=self.timeout_s)


LIGHT: Final = Profile(cpu="500m", memory="1Gi", timeout_s=600)
"""Reads a record and decides."""

DATA: Final = Profile(cpu="2", memory="8Gi", timeout_s=3_600)
"""Reads the log and writes rows."""

TENSOR: Final = Profile(cpu="2", memory="8Gi", timeout_s=7_200)
"""Loads TensorFlow."""
