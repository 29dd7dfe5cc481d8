"""Every way in which a run can end, through the compiled pipeline; each situation is planted in the data alone."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from planted.shop import Law, plant_shop

from features.workspace import Workspace
from models.aliases import champion_of, history, list_aliases
from models.card import read_card
from models.evaluation import CHAMPION
from models.versions import list_versions, load
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


Twice = tuple[Workspace, RunRecord, RunRecord]


@pytest.fixture(scope="module")
def twice(blessed: tuple[Workspace, RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """The blessed run, and another one on the same snapshot with another seed."""
    folder = tmp_path_factory.mktemp("twice") / "workspace"
    shutil.copytree(blessed[0].root, folder)
    workspace = Workspace(folder)
    return workspace, blessed[1], launch(workspace, MODEL, seed=8)


def test_a_run_on_an_unchanged_snapshot_keeps_the_champion_and_leaves_a_candidate(
    twice: Twice,
) -> None:
    workspace, first, second = twice
    assert (first.registered_version, second.registered_version) == (1, 2)
    assert champion_of(workspace, MODEL) == 1
    assert load(workspace, MODEL).version == 1
    assert {entry.alias: entry.to_version for entry in list_aliases(workspace, MODEL)} == {"champion": 1, "candidate": 2}
    assert "champion version 1 kept: gain " in history(workspace, MODEL)[0].why


def test_the_champion_is_asked_by_the_network_that_knows_no_answers(twice: Twice) -> None:
    _, first, second = twice
    about = second.evaluation["champion"]
    assert (about["version"], about["network"], about["overlaps"]) == (1, "evaluated", False)
    # The same rows, the same recipe, the network that the first run's gate judged: its figures are those of the first run.
    before, now = first.evaluation["candidates"]["network"], second.evaluation["candidates"][CHAMPION]
    assert now["auc"]["value"] == pytest.approx(before["auc"]["value"], abs=1e-6)


def test_lineage_names_data_code_and_the_champion_that_was_judged_against(
    twice: Twice,
) -> None:
    workspace, first, second = twice
    lineages = [load(workspace, MODEL, number).lineage for number in (1, 2)]
    assert all(lineage is not None for lineage in lineages)
    one, two = (lineage for lineage in lineages if lineage is not None)
    assert (one.parent_champion, two.parent_champion) == (None, 1)
    assert (one.seed, two.seed) == (7, 8)
    assert one.tables == two.tables == {"events/customer": 1, "profiles/address": -1}
    assert one.known_at_us == two.known_at_us == one.log_end_us
    assert set(one.code) == set(first.code)
    assert one.code["package"] == first.code["package"]
    assert load(workspace, MODEL, 2).run_id == second.run_id


def test_the_card_of_each_version_lies_beside_it(twice: Twice) -> None:
    workspace, _, _ = twice
    first, second = (read_card(load(workspace, MODEL, number), "markdown") for number in (1, 2))
    assert "**Status:** blessed and promoted; it is the first champion of this model" in first
    assert "**Status:** blessed; the champion was kept" in second
    assert "Champion version 1 was scored by its evaluated network, because its served one has learned from outcomes" in second
