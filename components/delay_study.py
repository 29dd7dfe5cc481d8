"""What learning from rows that have not matured is worth: each way trained at a past cutoff, judged by what finally happened.

The rows judged are those of the days before the cutoff, when every label was still open. None of them is learned from in any
form: a held-out row's own partial label would give its answer away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from components.training_rows import build_training_rows
from features.errors import explain
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.layout import DAY_S, US_PER_S
from features.workspace import Workspace
from models import bootstrap
from models.cutoffs import Sample, hold_out, hold_out_rows, sample_rows
from models.errors import EvaluationError
from models.frame import DelayedRows, Flags, Floats, Knowledge, read_delayed_rows
from models.labels import label_rows
from models.specs import ModelSpec, load_spec
from models.train import Recipe, fit_network, objective_of, predict
from transforms.fit import fit_graph

HAZARD: Final = "hazard"
NAIVE: Final = "naive"
WAYS: Final[tuple[Any, ...]] = (HAZARD, "fake_negative", "matured", NAIVE)
JUDGED_SHARE: Final = 0.4
RESAMPLES: Final = 1_000


@dataclass(frozen=True)
class Plan:
    """Which of the (n,) rows do what.

    Attributes:
        learned, held_out, judged: (n,) flags; no unit of a judged row is learned from or held out.
        label: final labels of the judged rows, 0 or 1.
        unit: names of the judged rows' units, which the bootstrap draws.
    """

    learned: Flags
    held_out: Flags
    judged: Flags
    label: NDArray[np.int8]
    unit: NDArray[np.str_]


@dataclass(frozen=True)
class Judged:
    """Rows of one cutoff or of several: (n,) final labels, names of units, and the scores of each way."""

    label: NDArray[np.int8]
    unit: NDArray[np.str_]
    scores: dict[str, Floats]


def judge_ways(  # noqa: PLR0913 - what, when, where to, and three bounds
    workspace: Workspace, model: str, cutoff_us: int, folder: Path, *, days: int, seed: int, history_days: int | None = None
) -> Judged:
    """Train a model's network in each way on what was known at a cutoff, and score rows that were open then.

    Args:
        model: of a spec that learns by a hazard, whose delay buckets are used.
        cutoff_us: UTC microseconds; no event ingested later is learned from.
        folder: gets the rows and the fitted graph.
        days: rows drawn within so many days before the cutoff are judged, as far as they are held out.
        seed: of the networks.
        history_days: rows drawn longer before the cutoff are not learned from; None learns from all.
    Raises:
        EvaluationError: the spec learns in another way, or what happened is not known by the end of the log.
    """
    spec = _require_hazard(load_spec(model))
    catalog, view = declarations_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    build_training_rows(workspace, model, cutoff_us, folder / "rows.parquet")
    fit_graph(folder / "rows.parquet", catalog, view, folder / "graph")
    log = read_events(workspace, catalog, view.entity)
    events = deduplicate(log, horizon_s=DEDUPLICATION_HORIZON_S)
    sample = sample_rows(events, spec, lag_s=view.lag_s, known_at_us=cutoff_us)
    end_us = pc.max(log["ingest_time"].cast(pa.int64())).as_py()
    final = label_rows(events, spec.label, sample.entity_ids, sample.now_us, known_at_us=end_us, touch=sample.touch)
    plan = split_rows(spec, sample, final, cutoff_us, days=days)
    if history_days is not None:
        new = sample.now_us > cutoff_us - history_days * DAY_S * US_PER_S
        plan = replace(plan, learned=plan.learned & new, held_out=plan.held_out & new)
    rows = read_delayed_rows(folder / "graph" / "features.parquet")
    _require_same_rows(rows, sample)
    return Judged(plan.label, plan.unit, dict(score_ways(spec, rows, plan, seed=seed)))


def split_rows(spec: ModelSpec, sample: Sample, final: pa.Table, cutoff_us: int, *, days: int) -> Plan:
    """Judge a share of the rows of the last days, by a hash of their unit; hold out rows as training does.

    A unit is an entity; where outcomes are credited to one row alone, it is what an entity does at one instant.
    """
    ids, now_us = sample.entity_ids.to_pylist(), sample.now_us
    alone = spec.label.attribution is not None
    units = [f"{entity}@{now}" for entity, now in zip(ids, now_us.tolist(), strict=True)] if alone else ids
    judged_unit = hold_out(pa.array([f"judge {unit}" for unit in units]), JUDGED_SHARE)
    recent = now_us > cutoff_us - days * DAY_S * US_PER_S
    judged = recent & judged_unit
    if not judged.any() or not pc.all(final["matured"].filter(pa.array(judged))).as_py():
        raise EvaluationError(
            explain(
                "outcomes are not known",
                which=f"{int(judged.sum())} rows of the {days} days before {np.datetime64(cutoff_us, 'us')}Z",
                expected="rows whose labels have matured by the end of the log",
                got="labels that are still open" if judged.any() else "no rows",
                next_step="choose an earlier cutoff",
            )
        )
    # At base dates an entity's earlier rows wait for the same outcome as its judged one.
    open_units = set(np.array(units)[judged].tolist())
    apart = np.array([unit in open_units for unit in units])
    label = final["label"].filter(pa.array(judged)).to_numpy().astype(np.int8)
    held_out = hold_out_rows(spec, sample.entity_ids, now_us, ~apart)
    return Plan(~apart & ~held_out, ~apart & held_out, judged, label, np.array(units)[judged])


def score_ways(spec: ModelSpec, rows: DelayedRows, plan: Plan, *, seed: int) -> Iterator[tuple[str, Floats]]:
    """(n,) scores of the judged rows by a network of each way; all have the same rows to learn from, cold copies left out."""
    drawn = len(plan.judged)
    inputs, now_s = rows.transformed[:drawn], rows.now_s[:drawn]
    known = Knowledge(*(getattr(rows.known, field.name)[:drawn] for field in fields(Knowledge)))
    for way in WAYS:
        # The naive way takes a row for answered whatever its age.
        believed = replace(known, observed_s=np.full(drawn, np.inf)) if way == NAIVE else known
        method: Literal["matured", "hazard", "fake_negative"] = "matured" if way == NAIVE else way
        objective = objective_of(replace(spec, learning=replace(spec.learning, method=method)))
        learned, held_out = (objective.teach(inputs, now_s, believed, part) for part in (plan.learned, plan.held_out))
        network, _ = fit_network(learned, held_out, Recipe(objective, spec.network, seed))
        yield way, predict(network, inputs[plan.judged])


def pool(parts: Sequence[Judged]) -> Judged:
    """The judged rows of several cutoffs as one set; a unit that was judged at two of them stays one unit."""
    scores = {way: np.concatenate([part.scores[way] for part in parts]) for way in parts[0].scores}
    return Judged(np.concatenate([part.label for part in parts]), np.concatenate([part.unit for part in parts]), scores)


def compare(judged: Judged, *, seed: int) -> dict[str, Any]:
    """Figures of each way with intervals, and what the hazard gains over each.

    Returns:
        ``rows``, ``units``, ``share`` (of label 1), ``ways``: for each of ``WAYS`` the figures ``log_loss`` and ``auc``, and
        ``mean_score``; but for the hazard also ``gain``, a figure: by how much the hazard's log loss is lower.
    """
    unit = np.unique(judged.unit, return_inverse=True)[1].astype(np.int64)
    weights = bootstrap.draw_weights(unit, RESAMPLES, seed=seed)
    losses = {way: bootstrap.log_loss(judged.label, score, weights) for way, score in judged.scores.items()}
    ways = {}
    for way, score in judged.scores.items():
        ways[way] = {
            "log_loss": bootstrap.interval_of(losses[way]),
            "auc": bootstrap.interval_of(bootstrap.auc(judged.label, score, weights)),
            "mean_score": float(score.mean()),
        }
        if way != HAZARD:
            ways[way]["gain"] = bootstrap.interval_of(losses[way] - losses[HAZARD])
    return {"rows": len(unit), "units": int(unit.max()) + 1, "share": float(judged.label.mean()), "ways": ways}


def _require_same_rows(rows: DelayedRows, sample: Sample) -> None:
    """The rows that were learned from are drawn from the log as known at the cutoff, the judged ones from the whole log."""
    drawn = len(sample.now_us)
    if rows.entity_ids[:drawn].to_pylist() != sample.entity_ids.to_pylist() or (rows.now_us[:drawn] != sample.now_us).any():
        raise EvaluationError(
            explain(
                "rows cannot be matched with what happened",
                which=f"{drawn} rows",
                expected="the same rows from the log as known at the cutoff and from the whole log",
                got="others: an event was known by two ingest times",
                next_step="choose another cutoff",
            )
        )


def _require_hazard(spec: ModelSpec) -> ModelSpec:
    if spec.learning.method != HAZARD:
        raise EvaluationError(
            explain(
                "ways to learn cannot be compared",
                which=f"model {spec.name!r}",
                expected="a spec that learns by a hazard, with delay buckets",
                got=spec.learning.method,
                next_step="choose another model",
            )
        )
    return spec
