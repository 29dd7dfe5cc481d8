"""A version that can be served: graph and network exported as one SavedModel, with the facts that a registry keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from components.code import code_version
from components.drift_reference import write_drift_reference
from features.errors import explain
from features.slots import OUTPUT_NAMES
from features.workspace import Workspace
from models.card import render_documents
from models.errors import VersionError
from models.evaluation import read_evaluation
from models.gate import Decision, judge
from models.lineage import trace
from models.specs import load_spec
from models.train import EVALUATED_FILE, NETWORK_FILE
from models.versions import EVALUATION_FILE, ModelVersion, NewVersion, Verdict, list_versions, register
from transforms.export import MODEL_RECORD, export_model

US_PER_S: Final = 1_000_000


@dataclass(frozen=True)
class Products:
    """What earlier steps made: the rows' file and metadata, the graph's folder, the network's folder, the evaluation's file."""

    rows: Path
    rows_metadata: Mapping[str, Any]
    graph: Path
    network: Path
    evaluation: Path


OUTRUN: Final = "kept a candidate: another version became champion since the two were compared"
LEFT: Final = "kept a candidate: only a rollout or a person promotes what this run makes"


@dataclass(frozen=True)
class Run:
    """Which run registers: its name or id, when it was created (ISO 8601 with its zone), its seed, and whether what it makes
    may take a champion's place by the gate's word alone."""

    run_id: str
    created_at: str
    seed: int
    may_promote: bool = True

    @property
    def created_at_us(self) -> int:
        """UTC microseconds.

        Raises:
            VersionError: it is no instant. A KFP server before 2.17 leaves its own placeholder in place.
        """
        try:
            created_at = datetime.fromisoformat(self.created_at)
            if created_at.tzinfo is None:
                raise ValueError("no zone")
            return round(created_at.timestamp() * US_PER_S)
        except ValueError as error:
            raise VersionError(
                explain("run does not say when it was created", which=self.run_id, expected="an ISO 8601 time with its zone",
                        got=repr(self.created_at), next_step="run it on a KFP server of release 2.17 or newer")
            ) from error  # fmt: skip


def register_version(workspace: Workspace, model: str, products: Products, scratch: Path, run: Run) -> ModelVersion:
    """Export and register the next version of a model; a run that has registered already gets the same version again.

    Args:
        scratch: folder for the exported model; emptied first. Gets the network that was judged, too: a later run asks it
            where the served one has learned from that run's test rows.
    """
    present = next((entry for entry in list_versions(workspace, model) if run.run_id and entry.run_id == run.run_id), None)
    if present is not None:
        return present
    spec, evaluation = load_spec(model), read_evaluation(products.evaluation)
    decision = judge(spec, products.evaluation)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    edges_s, slot_names = spec.learning.delay_buckets_s, OUTPUT_NAMES if spec.slots else ()
    network = products.network / NETWORK_FILE
    export_model(products.graph, network, scratch, delay_buckets_s=edges_s, slot_names=slot_names)
    shutil.copyfile(products.network / EVALUATED_FILE, scratch / EVALUATED_FILE)
    shutil.copyfile(products.evaluation, scratch / EVALUATION_FILE)
    write_drift_reference(model, products.rows, scratch, evaluation, seed=run.seed)
    record = json.loads((scratch / MODEL_RECORD).read_text(encoding="utf-8"))
    champion = evaluation.get("champion")
    lineage = trace(
        spec, products.rows_metadata, code=code_version(), seed=run.seed,
        parent_champion=None if champion is None else int(champion["version"]),
    )  # fmt: skip
    new = NewVersion(
        model=model, created_at_us=run.created_at_us, run_id=run.run_id, blessed=decision.blessed, reason=decision.reason,
        view_key=record["view"]["key"], view_hash=record["view_hash"], graph_hash=record["graph_hash"],
        metrics={
            f"{name}_{metric}": figure["value"]
            for name, figures in evaluation["candidates"].items() for metric, figure in figures.items()
        },
        lineage=lineage,
    )  # fmt: skip

    def describe(version: ModelVersion, promoted: bool) -> Mapping[str, str]:
        kept = OUTRUN if run.may_promote else LEFT
        reasons = decision.reasons + ((kept,) if decision.promoted and not promoted else ())
        return render_documents(spec, version, evaluation, replace(decision, promoted=promoted, reasons=reasons))

    return register(workspace, new, scratch, verdict=verdict_of(decision, run), documents=describe)


def verdict_of(decision: Decision, run: Run) -> Verdict:
    """How the version stands to the champion: by the gate's word, unless the run may not promote."""
    if decision.promoted and not run.may_promote:
        return Verdict(promoted=False, why=LEFT)
    return Verdict(decision.promoted, decision.reasons[-1])
