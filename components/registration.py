"""A version that can be served: graph and network exported as one SavedModel, with the facts that a registry keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from features.workspace import Workspace
from models.evaluation import read_evaluation
from models.gate import judge
from models.specs import load_spec
from models.train import NETWORK_FILE
from models.versions import ModelVersion, NewVersion, list_versions, register
from transforms.export import MODEL_RECORD, export_model

EVALUATION_FILE: Final = "evaluation.json"


@dataclass(frozen=True)
class Products:
    """What earlier steps made: the graph's folder, the network's folder, the evaluation's file."""

    graph: Path
    network: Path
    evaluation: Path


def register_version(
    workspace: Workspace, model: str, products: Products, scratch: Path, *, run_id: str, created_at_us: int
) -> ModelVersion:
    """Export and register the next version of a model; a run that has registered already gets the same version again.

    Args:
        scratch: folder for the exported model; emptied first.
        run_id: the run record's name; kept with the version.
        created_at_us: when the run started, UTC microseconds.
    """
    present = next((entry for entry in list_versions(workspace, model) if run_id and entry.run_id == run_id), None)
    if present is not None:
        return present
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    export_model(products.graph, products.network / NETWORK_FILE, scratch)
    shutil.copyfile(products.evaluation, scratch / EVALUATION_FILE)
    record = json.loads((scratch / MODEL_RECORD).read_text(encoding="utf-8"))
    decision = judge(load_spec(model), products.evaluation)
    candidates = read_evaluation(products.evaluation)["candidates"]
    new = NewVersion(
        model=model, created_at_us=created_at_us, run_id=run_id, blessed=decision.blessed, reason=decision.reason,
        view_key=record["view"]["key"], view_hash=record["view_hash"], graph_hash=record["graph_hash"],
        metrics={
            f"{name}_{metric}": figure["value"] for name, figures in candidates.items() for metric, figure in figures.items()
        },
    )  # fmt: skip
    return register(workspace, new, scratch)
