"""What a served model would have been worth: its scores from a cutoff on against what then happened.

The scores come from outside, from a running server. Here the population and the outcomes are drawn from the whole log,
and the baselines are fitted on the matured rows of the run that made the model, labelled as the served network learned them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from components.training_rows import read_requests
from features.errors import explain
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.workspace import Workspace
from models.baselines import fit_baseline, read_known_rows
from models.cutoffs import TEST, Sample
from models.errors import EvaluationError
from models.evaluate import RESAMPLES, measure
from models.evaluation import NETWORK
from models.frame import Flags, Frame
from models.labels import Ints, label_rows, population_at
from models.spec_checks import require_probability
from models.specs import ModelSpec, load_spec

BATCH_FEATURES: Final = ("transformed", "features")


@dataclass(frozen=True)
class Outcomes:
    """Rows to be scored, with what happened to them.

    Attributes:
        entity_ids, now_us: (n,) strings and UTC microseconds, by ascending now.
        fields: (n,) values of each request field that the rows state.
        label: (n,) 0 or 1, by what the log held at its end.
        matured: (n,) whether horizon and label delay had passed by then.
        log_end_us: that end.
    """

    entity_ids: pa.Array
    now_us: Ints
    fields: Mapping[str, list[Any]]
    label: NDArray[np.int8]
    matured: Flags
    log_end_us: int

    def moments(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Each distinct now, ascending, with the instances to be scored then."""
        ids, bounds = self.entity_ids.to_pylist(), np.flatnonzero(np.diff(self.now_us)) + 1
        for rows in np.split(np.arange(len(ids)), bounds):
            now_us = int(self.now_us[rows[0]])
            yield (
                now_us,
                [
                    {"entity_id": ids[row], "now": now_us, **{name: values[row] for name, values in self.fields.items()}}
                    for row in rows.tolist()
                ],
            )


def read_outcomes(workspace: Workspace, model: str, cutoff_us: int) -> Outcomes:
    """What is to be scored from a cutoff on, labelled from the whole log.

    The population as known at the cutoff; or, where the model's rows are drawn at events, every such event from then on,
    those included whose labels have not matured by the end of the log.

    Raises:
        SpecError: the model's score is no probability of its label.
        EvaluationError: nobody belongs to the population, or the log ends before the labels matured.
    """
    spec = load_spec(model)
    require_probability(spec, "a backtest")
    catalog, view = declarations_of(model)
    log = read_events(workspace, catalog, view.entity)
    events = deduplicate(log, horizon_s=DEDUPLICATION_HORIZON_S)
    end_us = pc.max(log["ingest_time"].cast(pa.int64())).as_py()
    draw = _draw_events if spec.cutoffs.at_events else _draw_population
    sample = draw(events, spec, view.lag_s, cutoff_us)
    labels = label_rows(events, spec.label, sample.entity_ids, sample.now_us, known_at_us=end_us, touch=sample.touch)
    matured = labels["matured"].to_numpy(zero_copy_only=False)
    if not len(matured) or not (matured.any() if spec.cutoffs.at_events else matured.all()):
        raise EvaluationError(
            explain(
                "outcomes are not known",
                which=f"model {model!r} at {np.datetime64(cutoff_us, 'us')}Z",
                next_step="choose another cutoff",
                expected="rows whose labels have matured by the end of the log",
                got=f"{len(matured)} rows, {int(matured.sum())} matured, log ends {np.datetime64(end_us, 'us')}Z",
            )
        )
    occurred = labels["outcome_time"].is_valid().to_numpy(zero_copy_only=False)
    label = (occurred == (spec.label.positive == "occurs")).astype(np.int8)
    # Base dates state nothing but the entity: the server fills in the same defaults as the training rows.
    stated = {} if sample.touch is None else {name: column.to_pylist() for name, column in read_requests(events, view, sample)}
    return Outcomes(sample.entity_ids, sample.now_us, stated, label, matured, end_us)


def _draw_population(events: pa.Table, spec: ModelSpec, lag_s: int, cutoff_us: int) -> Sample:
    everyone = events["entity_id"].unique()
    now_us = np.full(len(everyone), cutoff_us, dtype=np.int64)
    belongs = population_at(events, spec.population, now_us, lag_s=lag_s, entity_ids=everyone)
    ids = everyone.filter(pa.array(belongs))
    return Sample(ids, now_us[belongs], np.full(len(ids), TEST), cutoff_us)


def _draw_events(events: pa.Table, spec: ModelSpec, lag_s: int, cutoff_us: int) -> Sample:
    """At an event the entity asks by that very event, so it belongs whatever the stream's lag."""
    ingest_us = events["ingest_time"].cast(pa.int64()).to_numpy()
    chosen = pc.is_in(events["event_type"], value_set=pa.array(spec.cutoffs.at_events)).to_numpy(zero_copy_only=False)
    touch = np.flatnonzero(chosen & (ingest_us >= cutoff_us))
    touch = touch[np.argsort(ingest_us[touch], kind="stable")]
    now_us, ids = ingest_us[touch], events["entity_id"].combine_chunks().take(pa.array(touch))
    belongs = population_at(events, spec.population, now_us, lag_s=0, entity_ids=ids)
    touch = touch[belongs]
    return Sample(ids.filter(pa.array(belongs)), now_us[belongs], np.full(len(touch), TEST), cutoff_us, touch)


def judge_served(
    model: str, outcomes: Outcomes, predictions: Sequence[Mapping[str, Any]], features_path: Path, *, seed: int
) -> dict[str, Any]:
    """The evaluation of a served model's predictions beside every baseline, in the form of ``models.evaluate.measure``.

    Where some labels have not matured, the rows that have are judged a second time, alone, under ``matured``.

    Args:
        outcomes: as ``read_outcomes`` gave them.
        predictions: (n,) replies in the same order, each with ``score``, ``features`` and ``transformed``.
        features_path: finished training rows of the run that made the model.
        seed: of the bootstrap.
    """
    spec = load_spec(model)
    learned, held_out = read_known_rows(spec, features_path, as_served=True)
    test = replace(frame_of(outcomes, predictions), transformed_groups=learned.transformed_groups)
    scores = {NETWORK: np.array([entry["score"] for entry in predictions], dtype=np.float64)}
    scores |= score_baselines(spec, learned, held_out, test)
    evaluation = measure(spec, test, scores, resamples=RESAMPLES, seed=seed)
    matured = outcomes.matured
    if not matured.all():
        alone = {name: score[matured] for name, score in scores.items()}
        evaluation["matured"] = measure(spec, test.where(matured), alone, resamples=RESAMPLES, seed=seed)
    return evaluation


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
