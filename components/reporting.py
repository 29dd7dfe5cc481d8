"""What a run was made from, in words for its report: the facts that its steps left beside their artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.code import code_version
from models.evaluation import read_evaluation
from models.gate import judge
from models.report import render_report
from models.specs import load_spec

GRAPH_FILE: Final = "graph.json"
TRAINING_FILE: Final = "training.json"
US_PER_S: Final = 1_000_000
TABLE_PREFIXES: Final = ("events/", "profiles/")
SPLIT_PREFIX: Final = "rows_"


@dataclass(frozen=True)
class RunFacts:
    """Name, start (ISO 8601) and seed of a run, and where its steps left their facts."""

    run_id: str
    created_at: str
    seed: int
    rows_metadata: Mapping[str, Any]
    graph: Path
    network: Path


def write_report(model: str, evaluation_path: Path, facts: RunFacts, path: Path) -> None:
    """Write the report of a run that was evaluated, blessed or not; the file appears whole."""
    spec = load_spec(model)
    evaluation, decision = read_evaluation(evaluation_path), judge(spec, evaluation_path)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(render_report(spec, evaluation, decision, facts.run_id, trace_run(facts)), encoding="utf-8")
    partial.replace(path)


def trace_run(facts: RunFacts) -> dict[str, dict[str, str]]:
    """The lineage of a run by heading and name."""
    graph = json.loads((facts.graph / GRAPH_FILE).read_text(encoding="utf-8"))
    return {
        "Run": {"name": facts.run_id, "started": facts.created_at, "seed": str(facts.seed)},
        "Data": trace_data(facts.rows_metadata),
        "Features": {"view": graph["view"]["key"], "view hash": graph["view_hash"], "graph hash": graph["graph_hash"]},
        "Training": trace_training(json.loads((facts.network / TRAINING_FILE).read_text(encoding="utf-8"))),
        "Code": trace_code(code_version()),
    }


def trace_data(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Catalog, table versions, times and rows by split, as far as the run came to know them.

    Whole numbers may have become floats on their way through KFP.
    """
    facts = {"catalog": str(metadata["catalog"])} if "catalog" in metadata else {}
    for name, text in (("known_at_us", "known at"), ("log_end_us", "log ends"), ("test_begins_us", "test begins")):
        if name in metadata:
            facts[text] = _show_time(int(metadata[name]))
    tables = {name: int(value) for name, value in metadata.items() if name.startswith(TABLE_PREFIXES)}
    facts |= {name: f"Delta version {value}" if value >= 0 else "never written" for name, value in tables.items()}
    splits = {name: int(value) for name, value in metadata.items() if name.startswith(SPLIT_PREFIX)}
    if splits:
        facts["rows"] = ", ".join(f"{name.removeprefix(SPLIT_PREFIX)} {count:,}" for name, count in splits.items())
    return facts


def trace_training(summary: Mapping[str, Any]) -> dict[str, str]:
    """How the judged model and the served one were fitted."""
    return {
        name: f"{fit['rows']:,} rows, {fit['held_out_rows']:,} held out; held-out log loss {fit['held_out_log_loss']:.4f} "
        f"after {fit['epochs']} rounds"
        for name, fit in (("judged", summary["evaluated"]), ("served", summary["served"]))
    }


def trace_code(code: Mapping[str, Any]) -> dict[str, str]:
    """Package version and commit, as far as they are known."""
    differed = " (files differed)" if code.get("git_dirty") else ""
    facts = {
        "package": code.get("package"),
        "commit": f"{code['git_sha']}{differed}" if code.get("git_sha") else None,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _show_time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / US_PER_S, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
