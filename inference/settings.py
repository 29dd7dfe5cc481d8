"""What one serving process is told at its start; read once at the entry and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from features.online.guarded import Limits
from inference.prediction_log import MAX_QUEUED_ROWS, WHOLE_RATE


@dataclass(frozen=True)
class LogSettings:
    """How one server logs its answers.

    Attributes:
        folder: ``Workspace.predictions`` of the model.
        whole_rate: share of rows logged with state, fields and features, 0 to 1.
        max_queued_rows: rows beyond this that wait for the disk are dropped, and counted.
    """

    folder: Path
    whole_rate: float = WHOLE_RATE
    max_queued_rows: int = MAX_QUEUED_ROWS


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server, which serves one version of one model.

    Attributes:
        model_name: the model's name in URLs and gRPC requests.
        model_version: its registered version.
        model_path: folder of that version, with ``saved_model/`` and ``model.json``.
        store: online store of the model's view version: folder of an LMDB store, or URL of a Redis server. Those of views
            that it joins stand beside it.
        lookup_budget_s: seconds that a store on a server may let a request wait before the reply does without it.
        limits: how far the store is spared, and replaced while it is down.
        http_port, grpc_port: ports on 127.0.0.1; 0 lets the system choose.
        revision: which of several deployments of the model answers; every reply carries it.
        max_entities: most entities in one request; more are refused.
        max_explained: most entities in one request that asks for explanations; each costs hundreds of scores.
        graph_threads: predictions that run at the same time, each on one core.
        grace_period_s: seconds that requests in flight get to finish when the server is told to stop.
        log: where and how answers are logged; None logs nothing.
    """

    model_name: str
    model_version: int
    model_path: Path
    store: str
    lookup_budget_s: float = 0.05
    limits: Limits = field(default_factory=Limits)
    http_port: int = 8080
    grpc_port: int = 8081
    revision: str = "stable"
    max_entities: int = 5_000
    max_explained: int = 50
    graph_threads: int = 2
    grace_period_s: int = 10
    log: LogSettings | None = None
