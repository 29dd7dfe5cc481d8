"""The version in production on a new run's test rows: the same people at the same instants, by its own graph and network.

What makes the comparison fair is written down with it. A served network has learned from outcomes up to its own
``known_at``; where new test rows begin before that, it may know their answers. Then its *evaluated* network is asked
instead, which has learned only from what was known when its own test began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.declarations import declarations_of
from features.declarations import Catalog, View
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.workspace import Workspace
from models.aliases import champion_of
from models.cutoffs import TEST
from models.evaluation import Champion
from models.lineage import Lineage, jsonable
from models.slot_learning import predict_observed
from models.specs import LabelSpec, ModelSpec, load_spec
from models.train import EVALUATED_FILE, predict
from models.versions import ModelVersion, load
from transforms.export import SAVED_MODEL, load_finisher
from transforms.plan import GraphPlan, plan_graph

BATCH_ROWS: Final = 8_192
SERVED: Final = "served"
EVALUATED: Final = "evaluated"


@dataclass(frozen=True)
class Choice:
    """Which of the champion's networks is asked, and what is to be said about that.

    ``overlaps``: also that network may have learned from outcomes of the test rows, which favours the champion.
    """

    network: str
    overlaps: bool
    note: str


def score_champion(workspace: Workspace, model: str, rows_path: Path) -> Champion | None:
    """Scores of a run's test rows by the model's champion; None where the model has none.

    Args:
        model: name of its spec.
        rows_path: training rows of the run (``features.rows.training_schema``).
    Returns:
        (n,) scores of the matured test rows in file order, and what was used; scores are None where the champion cannot
        be compared, with the reason under ``note``.
    Raises:
        PlumblineError: the champion's files are gone, or the event log cannot be read.
    """
    if champion_of(workspace, model) is None:
        return None
    champion = load(workspace, model)
    spec = load_spec(model)
    obstacle = find_obstacle(champion, spec)
    view = None if obstacle else find_view(champion, spec)
    if obstacle or view is None:
        reason = obstacle or f"its view {champion.view_key} is no longer declared as it was"
        return Champion({"version": champion.version, "network": None, "note": f"cannot be compared: {reason}"}, None)
    rows = read_test_rows(rows_path)
    catalog, current = declarations_of(model)
    rebuilt = catalog.view_hash(current) != champion.view_hash
    inputs = rebuild_inputs(workspace, catalog, view, rows) if rebuilt else rows
    choice = choose_network(champion, int(pc.min(rows["now"].cast(pa.int64())).as_py()))
    if spec.slots is not None and choice.network == SERVED:
        # What is served corrects for sending hours and cannot say where actions are seen; the judged one says it.
        choice = Choice(EVALUATED, overlaps=False, note="its evaluated network, which says where actions are seen")
    about: dict[str, Any] = {"version": champion.version, "network": choice.network, "overlaps": choice.overlaps}
    about |= {"view": view.key, "rebuilt": rebuilt, "run_id": champion.run_id, "note": choice.note}
    return Champion(about, score_rows(champion, choice, plan_graph(catalog, view), inputs, hours=spec.slots is not None))


def find_obstacle(champion: ModelVersion, spec: ModelSpec) -> str:
    """Why a champion's scores would mean something else than the new ones; empty where they mean the same."""
    if champion.lineage is None:
        return "it was registered before lineage was kept, so nobody knows what it has learned from"
    if _asked(champion.lineage.label) != _asked(jsonable(spec.label)):
        return "it predicts another label than the spec names now"
    return ""


def _asked(label: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a row's label: not what reports show besides, what only teaches, or what was left at its default."""
    left = {entry.name: json.loads(json.dumps(entry.default)) for entry in fields(LabelSpec) if entry.default is not MISSING}
    named = {name: value for name, value in label.items() if name not in ("earlier_horizons_s", "closing")}
    return {name: value for name, value in named.items() if name not in left or value != left[name]}


def find_view(champion: ModelVersion, spec: ModelSpec) -> View | None:
    """The champion's view as it is pinned, if it is still declared so."""
    catalog, _ = declarations_of(spec.name)
    pinned = (view for view in catalog.views if view.key == champion.view_key)
    return next((view for view in pinned if catalog.view_hash(view) == champion.view_hash), None)


def choose_network(champion: ModelVersion, test_begins_us: int) -> Choice:
    """The served network if it cannot know the test rows' outcomes, else the evaluated one."""
    lineage = champion.lineage
    assert lineage is not None  # find_obstacle has said so otherwise
    if lineage.known_at_us <= test_begins_us:
        return Choice(SERVED, overlaps=False, note="its served network, trained before the test rows begin")
    if lineage.test_begins_us <= test_begins_us:
        return Choice(EVALUATED, overlaps=False, note=f"its evaluated network, because its served one {_knows(lineage)}")
    note = f"its evaluated network, which may know outcomes of the test rows in its favour; its served one {_knows(lineage)}"
    return Choice(EVALUATED, overlaps=True, note=note)


def score_rows(
    champion: ModelVersion, choice: Choice, plan: GraphPlan, rows: pa.Table, *, hours: bool = False
) -> NDArray[np.float64]:
    """(n,) scores of rows by the champion's graph and the chosen network; (n, 168) where it sees actions, of ``hours``."""
    finish = load_finisher(champion.path / SAVED_MODEL, plan)
    network = None if choice.network == SERVED else keras.models.load_model(champion.path / EVALUATED_FILE)
    ask = predict_observed if hours else predict
    scores = []
    for start in range(0, rows.num_rows, BATCH_ROWS):
        outputs = finish(rows.slice(start, BATCH_ROWS))
        scores.append(outputs["score"].astype(np.float64) if network is None else ask(network, outputs["transformed"]))
    return np.concatenate(scores)


def read_test_rows(path: Path) -> pa.Table:
    """The matured rows of the test split, in file order."""
    rows = pq.read_table(path)
    return rows.filter(pc.and_(pc.equal(rows["split"], TEST), rows["matured"])).combine_chunks()


def rebuild_inputs(workspace: Workspace, catalog: Catalog, view: View, rows: pa.Table) -> pa.Table:
    """The same rows with states and profiles of another view; request fields that they lack take their defaults."""
    now_us = rows["now"].cast(pa.int64()).to_numpy()
    entity_ids = rows["entity_id"].combine_chunks()
    events = deduplicate(read_events(workspace, catalog, view.entity), horizon_s=DEDUPLICATION_HORIZON_S)
    columns: dict[str, Any] = {"now": rows["now"], "state": states_as_known(events, catalog, view, entity_ids, now_us)}
    for profile in view.profiles:
        values = profiles_as_of(workspace, catalog, profile, entity_ids, now_us)
        columns |= {name: values[name] for name in values.column_names}
    columns |= {entry.name: rows[entry.name] for entry in view.request if entry.name in rows.column_names}
    return pa.table(columns)


def _knows(lineage: Lineage) -> str:
    return f"has learned from outcomes up to {np.datetime64(lineage.known_at_us, 'us').astype('datetime64[s]')}Z"
