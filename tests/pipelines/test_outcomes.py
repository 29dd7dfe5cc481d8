"""Every way in which a run can end, through the compiled pipeline; each situation is planted in the data alone."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from planted.shop import Law, plant_shop

from features.workspace import Workspace
from models.versions import list_versions
from pipelines.errors import StepFailed
from pipelines.records import RunRecord, list_records
from pipelines.reports import report_of
from plumb.pipelines import launch

# KFP says of every step that its CPU and memory limits mean nothing to a subprocess.
pytestmark = pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning")

MODEL = "churn_retail"
MOST_BYTES = 500_000
SECTIONS = ("Against every baseline", "ROC", "Lift", "Calibration", "Slices", "Label maturity", "Importance", "Lineage")


class Page(HTMLParser):
    """What a report is made of: its elements, the addresses they name, and the text of its headings and charts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scopes: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [str(values[name]) for name in ("src", "href", "xlink:href", "action") if name in values]
        self.scopes += [values.get("scope")] if tag == "th" else []


def run(folder: Path, law: Law) -> tuple[Workspace, RunRecord]:
    workspace = Workspace(folder)
    plant_shop(workspace, law)
    return workspace, launch(workspace, MODEL, seed=7)


def read_report(workspace: Workspace, record: RunRecord) -> str:
    """The report's text, once it is known to need nothing else and to be readable without eyes."""
    html = report_of(workspace, record.run_id).read_text(encoding="utf-8")
    page = Page(html)
    assert len(html.encode()) < MOST_BYTES
    assert not page.addresses
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "url(" not in html.replace("url(#hatched)", "")
    assert "@import" not in html
    drawn = html.count('role="img"')
    assert page.tags.count("desc") == drawn
    assert page.tags.count("title") == drawn + 1
    assert all(page.scopes)
    assert page.tags.count("caption") == page.tags.count("table")
    return html


@pytest.fixture(scope="module")
def blessed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, RunRecord]:
    return run(tmp_path_factory.mktemp("blessed"), "value")


def test_a_model_that_beats_its_baselines_is_blessed_promoted_and_registered(blessed: tuple[Workspace, RunRecord]) -> None:
    workspace, record = blessed
    assert (record.status, record.decision, record.registered_version) == ("succeeded", "blessed", 1)
    assert record.reason.startswith("AUC beats prior by +")
    assert record.reason.endswith("promoted: there is no champion")
    assert [version.version for version in list_versions(workspace, MODEL)] == [1]
    html = read_report(workspace, record)
    assert "✓ Blessed and promoted" in html
    assert all(f">{section}" in html for section in SECTIONS)
    assert all(f"</span>{name}</th>" in html for name in ("network", "prior", "recency", "logistic", "lightgbm"))
    assert "1 if no order happens within 90 days; known 1 day after the horizon" in html
    assert str(record.data["view_hash"]) in html
    assert "Delta version 1" in html


def test_a_model_that_a_baseline_beats_is_refused_and_nothing_is_registered(tmp_path: Path) -> None:
    workspace, record = run(tmp_path, "chance")
    assert (record.status, record.decision, record.registered_version) == ("not blessed", "not blessed", None)
    assert record.reason.startswith("AUC does not beat recency: gain -")
    assert not list_versions(workspace, MODEL)
    html = read_report(workspace, record)
    assert "✕ Not blessed" in html
    assert "AUC does not beat recency: gain -" in html
    assert all(f">{section}" in html for section in SECTIONS)


def test_a_model_that_harms_a_slice_is_refused_for_that_alone(tmp_path: Path) -> None:
    workspace, record = run(tmp_path, "turned")
    assert (record.status, record.registered_version) == ("not blessed", None)
    assert record.reason.startswith("slice '1 order' is harmed: AUC gain over recency -")
    assert "does not beat" not in record.reason
    assert "worse than" not in record.reason
    assert not list_versions(workspace, MODEL)
    html = read_report(workspace, record)
    assert "✕ Not blessed" in html
    assert "✕ harmed" in html


def test_a_log_that_has_rotted_fails_the_run_with_a_report_that_names_the_step(
    blessed: tuple[Workspace, RunRecord], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    shutil.copytree(blessed[0].events("customer"), workspace.events("customer"))
    corrupt_column(next(workspace.events("customer").rglob("*.parquet")), "amount_cents")
    with pytest.raises(StepFailed, match="pipeline step failed: training-rows of run"):
        launch(workspace, MODEL, seed=7)
    (record,) = list_records(workspace)
    assert (record.status, record.decision, record.registered_version) == ("failed", "", None)
    assert [step.status for step in record.steps] == ["failed", *["skipped"] * 6]
    assert not list_versions(workspace, MODEL)
    html = read_report(workspace, record)
    assert "✕ Failed" in html
    assert "training-rows</th>" in html
    assert record.steps[0].reason[:40] in html


def corrupt_column(path: Path, column: str) -> None:
    """Turn the bits of one column's pages in a Parquet file; its size and every other column stay as they were."""
    group = pq.read_metadata(path).row_group(0)
    chunk = next(group.column(number) for number in range(group.num_columns) if group.column(number).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = bytes(
        ~byte & 0xFF for byte in content[start : start + chunk.total_compressed_size]
    )
    path.write_bytes(content)
