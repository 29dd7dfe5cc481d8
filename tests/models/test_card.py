"""The model card: everything an operator must know before serving a version, in Markdown and in HTML."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models import evaluation as files
from models.card import describe_version, read_card, render_documents
from models.cutoffs import TEST
from models.documents import render_html, render_markdown
from models.errors import VersionError
from models.evaluate import measure
from models.frame import Frame
from models.gate import Decision
from models.lineage import Lineage, jsonable
from models.specs import Slice, load_spec
from models.versions import ModelVersion

SPEC = replace(load_spec("churn"), slices=(Slice("few <sessions>", "activity", 0, 0),), activity="activity")
LINEAGE = Lineage(
    catalog="subscription", tables={"events/user": 12, "profiles/account": -1},
    log_end_us=1_700_000_000_000_000, known_at_us=1_699_000_000_000_000, test_begins_us=1_696_000_000_000_000,
    rows={"rows_test": 300, "positives_test": 100, "rows_train": 9_000, "positives_train": 3_000},
    code={"package": "0.1.0", "git_sha": "abc123", "git_dirty": False}, label=jsonable(SPEC.label),
    population=jsonable(SPEC.population), cutoffs=jsonable(SPEC.cutoffs), learning=jsonable(SPEC.learning),
    network=jsonable(SPEC.network), seed=3, parent_champion=4,
)  # fmt: skip
VERSION = ModelVersion(
    "churn", 1_700_000_100_000_000, "run-7", True, "beats recency", "subscriber@1", "viewhash", "graphhash", {},
    lineage=LINEAGE, version=5, path=Path("nowhere"),
)  # fmt: skip

PROMOTED = Decision(blessed=True, promoted=True, reasons=("log_loss beats prior", "promoted"))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """A real evaluation of 300 rows: the network knows the label well, the champion a little, recency nothing."""
    rng = np.random.default_rng(0)
    label = np.tile(np.array([1, 0, 0], dtype=np.int8), 100)
    ids = pa.array([f"u{number}" for number in range(300)])
    activity = np.where(np.arange(300) < 6, 0, 9).astype(np.float32)[:, None]
    test = Frame(ids, label, np.full(300, TEST), activity, activity, ("activity",))
    noise = rng.uniform(0, 0.2, 300)
    scores = {files.NETWORK: 0.1 + 0.6 * label + noise, "recency": rng.uniform(0.2, 0.5, 300)}
    scores |= {name: np.full(300, 1 / 3) for name in SPEC.baselines if name != "recency"}
    scores[files.CHAMPION] = 0.2 + 0.3 * label + noise
    evaluation = measure(SPEC, test, scores, resamples=200, seed=0)
    evaluation["slices"][files.COLD_NAME] = {"kind": files.COLD, "rows": 0, "positives": 0}
    evaluation["champion"] = {
        "version": 4,
        "network": "served",
        "overlaps": False,
        "note": "its served network, trained before",
    }
    return evaluation


def card(evaluation: dict[str, Any], version: ModelVersion = VERSION) -> str:
    return render_markdown(describe_version(SPEC, version, evaluation, PROMOTED))


def test_the_card_says_what_is_predicted_for_whom_when_it_is_known_and_how_it_was_learned(measured: dict[str, Any]) -> None:
    text = card(measured)
    assert text.startswith("# churn version 5\n\nsubscriber cancels within 90 days\n\n")
    assert "**Status:** blessed and promoted over the champion\n\n- log_loss beats prior\n- promoted\n" in text
    assert "| **label** | 1 if cancellation happens within 90 days; known 14 days after the horizon |" in text
    assert "| **population** | everyone with a known signup, until cancellation |" in text
    assert "| **label delay** | 14 days |" in text
    assert "| **known at** | 2023-11-03T08:26:40Z; the served network learned from everything known at that time |" in text
    assert "| train | 9,000 | 3,000 |\n| test | 300 | 100 |" in text


def test_every_figure_has_its_interval_beside_every_baseline_and_the_champion(measured: dict[str, Any]) -> None:
    text = card(measured)
    # The network ranks every positive above every negative: 0.7 and more against 0.3 and less.
    assert "| this model | 1.000 [1.000, 1.000] |" in text
    for name in (*SPEC.baselines, "champion"):
        assert re.search(
            rf"^\| {name} \| [\d.]+ \[[\d.]+, [\d.]+\] \| .* \| [+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\] \|$", text, re.M
        )
    assert "Champion version 4 was scored by its served network, trained before." in text


def test_limits_name_small_slices_baselines_that_are_not_beaten_and_an_uneven_comparison(measured: dict[str, Any]) -> None:
    evaluation = deepcopy(measured)
    evaluation["gains"]["recency"][SPEC.gate.metric] = {"value": 0.01, "low": -0.01, "high": 0.03, "error": 0.01}
    del evaluation["gains"]["champion"], evaluation["candidates"]["champion"]
    for part in evaluation["slices"].values():
        part.get("gains", {}).pop("champion", None)
    evaluation["champion"] = {"version": 4, "network": None, "note": "cannot be compared: it predicts another label"}
    limits = section(card(evaluation), "Known limits")
    assert "- It is not better than recency by more than noise: gain in log loss +0.0100 [-0.0100, +0.0300]." in limits
    assert "- Slice 'few <sessions>' has 6 test rows, 2 positive: too few to judge." in limits
    assert "- Champion version 4 cannot be compared: it predicts another label." in limits
    assert "- Whether a score was right is known only 104 days after it was given" in limits
    assert "recency" not in section(card(measured), "Known limits")


def test_the_way_back_is_the_promotion_of_the_champion_before(measured: dict[str, Any]) -> None:
    assert "plumb models promote churn 4 --why" in section(card(measured), "How to go back")
    first = replace(VERSION, lineage=replace(LINEAGE, parent_champion=None))
    assert "there is nothing to go back to" in section(card(measured, first), "How to go back")
    kept = Decision(blessed=True, promoted=False, reasons=("kept",))
    text = render_markdown(describe_version(SPEC, VERSION, measured, kept))
    assert "**Status:** blessed; the champion was kept" in text
    assert "plumb models promote churn 5 --why" in section(text, "How to go back")


def test_lineage_pins_data_view_graph_and_code(measured: dict[str, Any]) -> None:
    text = section(card(measured), "Lineage")
    for fact in (
        "| **run** | run-7 |", "| **table events/user** | version 12 |", "| **table profiles/account** | never written |",
        "| **view** | subscriber@1 viewhash |", "| **graph** | graphhash |", "| **code git_sha** | abc123 |",
    ):  # fmt: skip
        assert fact in text


def test_the_page_needs_nothing_from_outside_is_well_formed_and_escapes_what_it_quotes(measured: dict[str, Any]) -> None:
    page = render_html(describe_version(SPEC, VERSION, measured, PROMOTED))
    assert "few &lt;sessions&gt;" in page
    assert "<sessions>" not in page
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/)", page)
    Balanced().feed(page)


def test_both_forms_lie_beside_a_version_and_are_read_back(measured: dict[str, Any], tmp_path: Path) -> None:
    texts = render_documents(SPEC, VERSION, measured, PROMOTED)
    assert set(texts) == {"card.md", "card.html"}
    version = replace(VERSION, path=tmp_path)
    with pytest.raises(VersionError, match=r"^model version has no card: churn version 5; [^\n]+$"):
        read_card(version, "html")
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_card(version, "html") == texts["card.html"]
    assert read_card(version, "markdown") == texts["card.md"]


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


class Balanced(HTMLParser):
    """Every tag that opens is closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
