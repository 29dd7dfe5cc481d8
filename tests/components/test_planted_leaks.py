"""Training rows are worth what their checks catch: each planted leak must show as rows that differ from a plain loop's."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from parity.mutation import mutate

from components import training_rows
from features import point_in_time
from features.catalogs import load_catalog
from features.events import append_events, read_events
from features.layout import DAY_S, US_PER_S
from features.rows import TIME
from features.workspace import Workspace
from models import cutoffs, labels
from models.cutoffs import EMBARGO, TRAIN, VALIDATION, Sample
from models.specs import CutoffPlan, LabelSpec, load_spec

RETAIL = load_catalog("retail")
VIEW = RETAIL.view("customer")
DAY_US = DAY_S * US_PER_S
START_US = 20_000 * DAY_US
KNOWN_AT_US = START_US + 150 * DAY_US
HORIZON_US = 20 * DAY_US
SPEC = replace(
    load_spec("churn_retail"),
    label=LabelSpec(("order",), 20 * DAY_S, "occurs", label_delay_s=2 * DAY_S),
    cutoffs=CutoffPlan(every_s=10 * DAY_S, warm_up_s=10 * DAY_S),
)
CHECKED_STATES = 150


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """60 customers who order every 12 days or so for 200 days; an order may become known up to 8 days late."""
    rng = np.random.default_rng(9)
    count = 1_000
    event_us = START_US + (rng.random(count) * 200 * DAY_US).astype(np.int64)
    ingest_us = event_us + (rng.random(count) ** 3 * 8 * DAY_US).astype(np.int64)
    table = pa.table(
        {"event_id": [f"o{number}" for number in range(count)], "entity_id": [f"c{number % 60}" for number in range(count)],
         "event_type": ["order"] * count, "event_time": pa.array(event_us).cast(TIME),
         "ingest_time": pa.array(ingest_us).cast(TIME), "region": ["eu"] * count, "amount_cents": pa.array([100] * count)}
    )  # fmt: skip
    workspace = Workspace(tmp_path_factory.mktemp("leaks"))
    append_events(workspace, RETAIL, "customer", table, source="all")
    return read_events(workspace, RETAIL, "customer")


def micros(events: pa.Table, name: str) -> np.ndarray:
    found: np.ndarray = events[name].cast(pa.int64()).to_numpy()
    return found


def find_leaks(events: pa.Table) -> set[str]:
    """What of the training rows as of ``KNOWN_AT_US`` a loop over events that were known in time does not find as well."""
    sample = cutoffs.sample_rows(events, SPEC, lag_s=VIEW.lag_s, known_at_us=KNOWN_AT_US)
    final = labels.label_rows(events, SPEC.label, sample.entity_ids, sample.now_us, known_at_us=KNOWN_AT_US)
    columns = training_rows.label_columns(events, SPEC, sample, KNOWN_AT_US)
    leaks = {
        "label": final["outcome_time"].cast(pa.int64()).to_pylist() != loop_outcomes(events, sample, KNOWN_AT_US),
        "evaluated label": learned(sample, columns["earlier_outcome_time"].cast(pa.int64()).to_pylist())
        != learned(sample, loop_outcomes(events, sample, sample.test_begins_us)),
        "state": leaking_states(events, sample) > 0,
        "population": not all(known_before(events, sample)),
    }
    return {name for name, leaks_here in leaks.items() if leaks_here}


def learned(sample: Sample, outcomes: list[int | None]) -> list[int | None]:
    """Those of the rows that an evaluated model may learn from."""
    before = np.isin(sample.split, (TRAIN, VALIDATION, EMBARGO))
    return [outcome for outcome, taken in zip(outcomes, before, strict=True) if taken]


def loop_outcomes(events: pa.Table, sample: Sample, known_at_us: int) -> list[int | None]:
    entity, time_us, ingest_us = np.array(events["entity_id"]), micros(events, "event_time"), micros(events, "ingest_time")
    found: list[int | None] = []
    for name, now_us in zip(sample.entity_ids.to_pylist(), sample.now_us.tolist(), strict=True):
        counts = (entity == name) & (ingest_us <= known_at_us) & (time_us > now_us) & (time_us <= now_us + HORIZON_US)
        found.append(int(time_us[counts].min()) if counts.any() else None)
    return found


def leaking_states(events: pa.Table, sample: Sample) -> int:
    """Rows whose state differs from the one over a log that ends where the row stands."""
    states = point_in_time.states_as_known(events, RETAIL, VIEW, sample.entity_ids, sample.now_us).to_pylist()
    known_us, differ = pc.add(events["ingest_time"].cast(pa.int64()), VIEW.lag_s * US_PER_S), 0
    for row in np.linspace(0, len(states) - 1, CHECKED_STATES).astype(int).tolist():
        log = events.filter(pc.less_equal(known_us, int(sample.now_us[row])))
        alone = sample.entity_ids.slice(row, 1), sample.now_us[row : row + 1]
        differ += states[row] != point_in_time.states_as_known(log, RETAIL, VIEW, *alone).to_pylist()[0]
    return differ


def known_before(events: pa.Table, sample: Sample) -> list[bool]:
    """Whether each row's customer was known by then."""
    entity, ingest_us = np.array(events["entity_id"]), micros(events, "ingest_time")
    first = {name: int(ingest_us[entity == name].min()) for name in set(entity.tolist())}
    rows = zip(sample.entity_ids.to_pylist(), sample.now_us.tolist(), strict=True)
    return [first[name] + VIEW.lag_s * US_PER_S <= now for name, now in rows]


def test_the_unaltered_rows_leak_nothing(events: pa.Table) -> None:
    assert find_leaks(events) == set()


LEAKS: dict[str, tuple[ModuleType, str, str, str, str]] = {
    "a feature from an event that was ingested later": (point_in_time, "_known_us", '"ingest_time"', '"event_time"', "state"),
    "a label from an outcome after the horizon": (
        labels, "label_rows", "tolerance=horizon_us", "tolerance=horizon_us + 1_000_000 * 86_400", "label"
    ),
    "a label from an outcome known after the cutoff": (
        labels, "known_log", "<= known_at_us", "<= known_at_us + 86_400_000_000", "label"
    ),
    "an evaluated label from an outcome known after the test begins": (
        training_rows, "label_columns", "(known_at_us, sample.test_begins_us)", "(known_at_us, known_at_us)", "evaluated label"
    ),
    "a population that knows who will come": (
        labels, "_newest_known", '+ lag_s * US_PER_S', '- 30 * 86_400_000_000', "population"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_shows(name: str, events: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, old, new, shows = LEAKS[name]
    mutate(monkeypatch, module, function, old, new)
    assert shows in find_leaks(events)
