"""The skew audit: served rows, the same rows made again by the batch path, and what differs.

The rooms that take part do not know each other: predictions come from the features room, transforms makes rows again,
monitoring compares. Every row's state and profile values are compared by their hashes; whole rows value by value.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from components.served_rows import CHECKED, STATUSES, UNDECLARED, Selection, Served, survey
from components.skew_comparison import Version, compare_served
from features.audits import keep_audit
from features.catalogs import load_catalog
from features.errors import explain
from features.event_log.complete import read_complete
from features.layout import US_PER_S
from features.rows import SKEW
from features.workspace import Workspace
from models.versions import load
from monitoring import skew
from monitoring.errors import SkewError, SkewFound
from monitoring.skew import Difference, Tally


@dataclass(frozen=True)
class SkewAudit:
    """What an audit found.

    Attributes:
        rows: rows read; ``statuses`` says how many could be checked, and why others could not.
        whole: rows compared value by value.
        checked, mismatched: rows by kind of comparison (``monitoring.skew.KINDS``), all versions together.
        first: the first differing signal of the replay; None where nothing differs.
        differences: rows of ``rows.SKEW``.
    """

    model: str
    versions: tuple[int, ...]
    start_us: int
    end_us: int
    rows: int
    whole: int
    statuses: Mapping[str, int]
    checked: Mapping[str, int]
    mismatched: Mapping[str, int]
    first: Difference | None
    differences: pa.Table

    @property
    def mismatches(self) -> int:
        """Rows that differ, each kind counted by itself."""
        return sum(self.mismatched.values())

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON: the counts, the first differing signal, and every difference."""
        own = {name: getattr(self, name) for name in ("model", "versions", "start_us", "end_us", "rows", "whole")}
        own |= {name: dict(getattr(self, name)) for name in ("statuses", "checked", "mismatched")}
        first = None if self.first is None else asdict(self.first)
        return {**own, "mismatches": self.mismatches, "first": first, "differences": self.differences.to_pylist()}


def audit_skew(workspace: Workspace, model: str, selection: Selection, *, measured_at_us: int) -> SkewAudit:
    """Make a model's served rows again and compare.

    Memory is that of one log partition's events and rows; time grows with rows, with events of the partitions, and with
    distinct states (two rows of a user between whose answers nothing came share one).

    What it found is kept for monitors (``features.audits``).

    Args:
        measured_at_us: recorded with the result, UTC microseconds.

    Raises:
        SkewError: there are no rows to audit, or none that can be made again: silence is no pass.
        PlumblineError: a version, its log or its profiles cannot be read.
    """
    folder = workspace.predictions(model)
    found = survey(folder, selection)
    if not found:
        raise SkewError(
            explain("no predictions to audit", which=f"{model} in {folder}", expected="served rows in the time asked for",
                    got="none", next_step="serve the model, or widen --since and --until")
        )  # fmt: skip
    statuses: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
    tallies: dict[int, Tally] = {}
    whole, names, tables = 0, [], []
    for number, span in sorted(found.items()):
        version = read_version(workspace, model, number)
        if version is None:
            statuses[UNDECLARED] += span.rows
            continue
        tally = tallies[number] = Tally()
        whole += _audit_version(workspace, model, version, selection, tally, statuses)
        names += signal_order(version)
        about = {"model": model, "model_version": number, "view_key": version.view.key}
        tables.append(
            skew.tabulate(tally, about=about, start_us=span.start_us, end_us=span.end_us, measured_at_us=measured_at_us)
        )
    _require_checked(model, statuses)
    firsts = [first for tally in tallies.values() if (first := tally.first(names))]
    audit = SkewAudit(
        model=model,
        versions=tuple(sorted(found)),
        start_us=min(span.start_us for span in found.values()),
        end_us=max(span.end_us for span in found.values()),
        rows=sum(span.rows for span in found.values()),
        whole=whole,
        statuses=dict(statuses),
        checked=_total([tally.checked for tally in tallies.values()]),
        mismatched=_total([tally.mismatched for tally in tallies.values()]),
        first=min(firsts, key=lambda one: skew.KINDS.index(one.kind), default=None),
        differences=pa.concat_tables([SKEW.empty_table(), *tables]),
    )
    keep_audit(workspace, audit.describe(), measured_at_us=measured_at_us)
    return audit


def write_audit(
    root: Path, control_database: str, model: str, selection: Mapping[str, Any], differences: Path, audit: Path
) -> dict[str, Any]:  # fmt: skip
    """Audit for a pipeline step: Parquet of ``rows.SKEW`` and a JSON file, each whole or not at all.

    Args:
        selection: since_us and until_us (0 for no bound), rate, measured_at (ISO 8601).

    Returns:
        Rows, mismatches and the first differing signal in one line, for the artifact's metadata.
    """
    drawn = Selection(selection["since_us"] or None, selection["until_us"] or None, selection["rate"])
    measured_at_us = round(datetime.fromisoformat(selection["measured_at"]).timestamp() * US_PER_S)
    found = audit_skew(Workspace(root, control_database), model, drawn, measured_at_us=measured_at_us)
    partial = differences.with_name(f"{differences.name}.partial")
    pq.write_table(found.differences, partial)
    partial.replace(differences)
    partial = audit.with_name(f"{audit.name}.partial")
    facts = {name: value for name, value in found.describe().items() if name != "differences"}
    partial.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    partial.replace(audit)
    return {"rows": found.rows, "mismatches": found.mismatches, "first": tell_first(facts)}


def require_no_skew(model: str, audit: Path) -> str:
    """What an audit's JSON file says, in one line.

    Raises:
        SkewFound: a served row differs from the batch path; the line names the first signal.
    """
    facts = json.loads(audit.read_text(encoding="utf-8"))
    if facts["mismatches"]:
        raise SkewFound(
            explain("served rows differ from the batch path", which=model, expected="the same bytes and values",
                    got=f"{facts['mismatches']} mismatches in {facts['rows']} rows; first {tell_first(facts)}",
                    next_step="follow docs/runbooks/skew.md")
        )  # fmt: skip
    return f"{facts['statuses']['checked']} of {facts['rows']} rows made again, none differs"


def tell_first(facts: Mapping[str, Any]) -> str:
    """The first differing signal of ``SkewAudit.describe`` with an example, in one line; empty where there is none."""
    first = facts["first"]
    if first is None:
        return ""
    line = f"{first['kind']} of {first['signal']}"
    if first["example"] is None:
        return f"{line}; no differing row was logged whole"
    return f"{line}, such as {first['example']['entity_id']} at {first['example']['now_us']}: {first['example']['detail']}"


def read_version(workspace: Workspace, model: str, number: int) -> Version | None:
    """A version with the declarations that it was trained on; None where its view is declared otherwise by now.

    Raises:
        VersionError: there is no such version, or its files are gone.
        DeclarationError: its catalog or view is not declared any more.
    """
    path = load(workspace, model, number, require_blessed=False).path
    description = orjson.loads((path / "model.json").read_bytes())
    catalog = load_catalog(description["catalog"])
    view = catalog.view(description["view"]["name"])
    if description["view_hash"] != catalog.view_hash(view):
        return None
    return Version(number, catalog, view, path / "saved_model")


def signal_order(version: Version) -> list[str]:
    """Signals by id, then fields: in which order a difference is the first."""
    catalog, view = version.catalog, version.view
    fields = (*catalog.profile_fields_of(view), *view.request)
    return [*(signal.name for signal in catalog.signals_of(view)), *(field.name for field in fields)]


def _audit_version(
    workspace: Workspace, model: str, version: Version, selection: Selection, tally: Tally, statuses: Counter[str]
) -> int:  # fmt: skip
    """Audit one version, a log partition at a time; returns how many rows were compared whole."""
    from transforms.rebuild import RowBuilder

    catalog, view = version.catalog, version.view
    builder = RowBuilder(workspace, catalog, view, version.saved_model)
    whole = 0
    for partition in range(catalog.log_partitions):
        served = Served.read(workspace.predictions(model), version.number, partition, selection)
        if not served.rows.num_rows:
            continue
        ids = served.rows["entity_id"].combine_chunks().unique()
        log = read_complete(workspace, catalog, view, partition, entity_ids=ids)
        served = served.checkable(log, partition, statuses)
        whole += compare_served(builder, served, log, version, tally, statuses)
    return whole


def _require_checked(model: str, statuses: Mapping[str, int]) -> None:
    if not statuses[CHECKED]:
        counts = ", ".join(f"{count} {status}" for status, count in statuses.items() if count)
        raise SkewError(
            explain("no served row can be made again", which=model, expected="rows to compare", got=counts,
                    next_step="audit a later time; docs/runbooks/skew.md says what keeps rows from being checked")
        )  # fmt: skip


def _total(counts: list[Counter[str]]) -> dict[str, int]:
    """Sums by kind, kinds in their order; those that nothing was compared of are absent."""
    return {kind: sum(count[kind] for count in counts) for kind in skew.KINDS if any(kind in count for count in counts)}
