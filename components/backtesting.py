"""What a served model would have been worth: its scores for everyone at a cutoff against what then happened.

The scores come from outside, from a running server. Here the population and the outcomes are drawn from the whole log,
and the baselines are fitted on the very rows that the served network was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from features.errors import explain
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.workspace import Workspace
from models.baselines import fit_baseline
from models.cutoffs import EMBARGO, TEST, TRAIN, VALIDATION, hold_out
from models.errors import EvaluationError
from models.evaluate import RESAMPLES, measure
from models.evaluation import NETWORK
from models.frame import Frame, read_frame
from models.labels import label_rows, population_at
from models.specs import ModelSpec, load_spec

BATCH_FEATURES: Final = ("transformed", "features")


@dataclass(frozen=True)
class Outcomes:
    """Everyone of the population at a cutoff, with what happened to them: (n,) ids and (n,) labels 0 or 1."""

    entity_ids: pa.Array
    label: NDArray[np.int8]


def read_outcomes(workspace: Workspace, model: str, cutoff_us: int) -> Outcomes:
    """The population as known at a cutoff, labelled from the whole log.

    Raises:
        EvaluationError: nobody belongs to the population, or the log ends before the labels matured.
    """
    spec = load_spec(model)
    catalog, view = declarations_of(model)
    columns = ["entity_id", "event_id", "event_type", "event_time", "ingest_time", "log_partition", "log_offset"]
    columns += [condition.attribute for condition in spec.label.where]
    log = read_events(workspace, catalog, view.entity, columns=columns)
    events = deduplicate(log, horizon_s=DEDUPLICATION_HORIZON_S)
    everyone = events["entity_id"].unique()
    now_us = np.full(len(everyone), cutoff_us, dtype=np.int64)
    belongs = population_at(events, spec.population, now_us, lag_s=view.lag_s, entity_ids=everyone)
    entity_ids, now_us = everyone.filter(pa.array(belongs)), now_us[belongs]
    end_us = pc.max(log["ingest_time"].cast(pa.int64())).as_py()
    labels = label_rows(events, spec.label, entity_ids, now_us, known_at_us=end_us)
    if not len(entity_ids) or not pc.all(labels["matured"]).as_py():
        raise EvaluationError(
            explain(
                "outcomes are not known",
                which=f"model {model!r} at {np.datetime64(cutoff_us, 'us')}Z",
                next_step="choose another cutoff",
                expected="a population whose labels have matured by the end of the log",
                got=f"{len(entity_ids)} entities, log ends {np.datetime64(end_us, 'us')}Z",
            )
        )
    return Outcomes(entity_ids, labels["label"].to_numpy().astype(np.int8))


def judge_served(
    model: str, outcomes: Outcomes, predictions: Sequence[Mapping[str, Any]], features_path: Path, *, seed: int
) -> dict[str, Any]:
    """The evaluation of a served model's predictions beside every baseline, in the form of ``models.evaluate.measure``.

    Args:
        outcomes: as ``read_outcomes`` gave them.
        predictions: (n,) replies in the same order, each with ``score``, ``features`` and ``transformed``.
        features_path: finished training rows of the run that made the model.
        seed: of the bootstrap.
    """
    spec = load_spec(model)
    test = frame_of(outcomes, predictions)
    known = read_frame(features_path).of(TRAIN, VALIDATION, EMBARGO, TEST)
    held = hold_out(known.entity_ids, spec.cutoffs.validation_share)
    scores = {NETWORK: np.array([entry["score"] for entry in predictions], dtype=np.float64)}
    scores |= score_baselines(spec, known.where(~held), known.where(held), test)
    return measure(spec, test, scores, resamples=RESAMPLES, seed=seed)


def score_baselines(spec: ModelSpec, rows: Frame, held_out: Frame, test: Frame) -> dict[str, NDArray[np.float64]]:
    """(n,) scores of the test rows by every baseline of a spec."""
    return {name: fit_baseline(name, spec, rows, held_out).score(test) for name in spec.baselines}


def frame_of(outcomes: Outcomes, predictions: Sequence[Mapping[str, Any]]) -> Frame:
    """Served features as rows that baselines can score."""
    names = tuple(predictions[0]["features"])
    transformed, finished = (
        np.array([list(entry[key].values()) for entry in predictions], np.float32) for key in BATCH_FEATURES
    )
    split = np.full(len(predictions), TEST)
    return Frame(outcomes.entity_ids, outcomes.label, split, transformed, finished, names)
