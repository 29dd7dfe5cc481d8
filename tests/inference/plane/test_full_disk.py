"""What a plane does when it cannot write: a canary may always get less, at once and for good, and never more.

The kernel refuses to let this process's files grow beyond a limit, as it does on a full disk; what is written in place goes on.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planes.harness import plane_in_thread, service

from inference.plane.documents import Documents
from inference.plane.errors import NotRecorded
from inference.plane.patch import apply_patch
from inference.plane.reserve import SLOT_BYTES, SLOTS, Lowered, Reserve

RESERVED = SLOTS * SLOT_BYTES


@contextlib.contextmanager
def full_disk(most_bytes: int = RESERVED) -> Iterator[None]:
    """No file grows beyond so many bytes: a service's record needs more, what is reserved for it has no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large(percent: int) -> dict[str, Any]:
    """A document with a canary, of some 3 kB."""
    document = service(canary=2, percent=percent)
    document["metadata"]["annotations"]["team"] = "growth " * 400
    return document


def opened(folder: Path, percent: int = 25) -> Documents:
    documents = Documents(folder)
    documents.apply_file(large(percent), 100)
    return documents


def change(documents: Documents, *operations: dict[str, Any]) -> None:
    content = documents.read("churn")
    assert content is not None
    documents.write("churn", apply_patch(content, list(operations)), 200)


def give(percent: int) -> dict[str, Any]:
    return {"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": percent}


def share(documents: Documents) -> int | None:
    found = documents.service("churn")
    assert found is not None
    return found.canary.percent if found.canary else None


NONE: dict[str, Any] = {"op": "remove", "path": "/spec/canary"}


def test_a_reduction_takes_effect_on_a_full_disk_and_is_still_there_after_a_restart(tmp_path: Path) -> None:
    documents = opened(tmp_path)
    with full_disk():
        change(documents, give(5))
        change(documents, give(1))
        assert share(documents) == 1
        assert "the reserved room holds 1 % for the canary, also after a restart" in documents.pending["churn"]
        assert documents.write_pending() == []
        again = Documents(tmp_path)
        assert share(again) == 1
        # The same version: who read it before the restart may go on from it.
        assert again.read("churn") == documents.read("churn")
        assert again.pending == {"churn": "lowered to 1 % while the disk was full"}
        with pytest.raises(NotRecorded, match="document cannot be written: churn; expected room on disk"):
            change(again, give(2))
        assert share(again) == 1
    assert again.write_pending() == ["churn"]
    assert again.pending == {}
    assert share(Documents(tmp_path)) == 1
    assert Documents(tmp_path).pending == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.json", "churn.reserve"]


def test_a_canary_that_was_removed_on_a_full_disk_has_nothing_after_a_restart(tmp_path: Path) -> None:
    documents = opened(tmp_path)
    with full_disk():
        change(documents, NONE)
        assert share(documents) is None
        assert share(Documents(tmp_path)) == 0
    assert documents.write_pending() == ["churn"]
    assert share(Documents(tmp_path)) is None


def test_only_where_nothing_at_all_could_be_written_a_restart_brings_the_share_back(tmp_path: Path) -> None:
    documents = opened(tmp_path)
    with full_disk(0):
        change(documents, give(0))
        assert share(documents) == 0
        assert "a restart would bring back what was written last" in documents.pending["churn"]
    assert share(Documents(tmp_path)) == 25
    assert documents.write_pending() == ["churn"]
    assert share(Documents(tmp_path)) == 0


def test_what_gives_anybody_more_or_changes_who_answers_is_refused_on_a_full_disk(tmp_path: Path) -> None:
    documents = opened(tmp_path)
    before = documents.read("churn")
    uri = {"op": "replace", "path": "/spec/predictor/model/storageUri", "value": "pvc://plumb-models/churn/3"}
    other = {**large(1)["spec"]["canary"][0], "predictor": service(9)["spec"]["predictor"] | {"name": "v9"}}
    for operations in ([give(26)], [give(25)], [uri, NONE], [{"op": "replace", "path": "/spec/canary/0", "value": other}]):
        with full_disk(), pytest.raises(NotRecorded):
            change(documents, *operations)
    with full_disk(), pytest.raises(NotRecorded):
        documents.write("other", service(1, name="other") | {"metadata": {**large(1)["metadata"], "name": "other"}}, 1)
    assert (documents.read("churn"), documents.pending, documents.names()) == (before, {}, ["churn"])
    assert Documents(tmp_path).read("churn") == before


def test_a_newer_record_makes_the_reserved_room_void(tmp_path: Path) -> None:
    documents = opened(tmp_path)
    with full_disk():
        change(documents, give(1))
    change(documents, give(50))
    assert share(Documents(tmp_path)) == 50


def test_a_slot_that_was_cut_short_leaves_the_one_before(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "churn.reserve")
    reserve.prepare()
    assert reserve.read(100) is None
    reserve.write(Lowered(100, 101, 5))
    reserve.write(Lowered(100, 102, 1))
    assert reserve.read(100) == Lowered(100, 102, 1)
    content = bytearray((tmp_path / "churn.reserve").read_bytes())
    place = content.index(b"[100,102,1]")
    content[place + 9 : place + 10] = b"9"  # 102,1 became 102,9
    (tmp_path / "churn.reserve").write_bytes(content)
    assert reserve.read(100) == Lowered(100, 101, 5)
    reserve.write(Lowered(100, 103, 0))  # over the damaged one
    assert reserve.read(100) == Lowered(100, 103, 0)
    assert reserve.read(102) is None


def test_a_running_plane_says_what_is_not_on_disk_and_writes_it_once_there_is_room(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, rewrite_s=0.1) as plane:
        plane.put(large(100))
        plane.until_ready("stable", "v2")
        assert plane.predict("u1").headers["x-plumb-revision"] == "v2"

        def recorded() -> str:
            return next(entry["status"] for entry in plane.get()["status"]["conditions"] if entry["type"] == "Recorded")

        assert (recorded(), plane.metric("plumb_plane_pending", service="churn")) == ("True", 0)
        with full_disk():
            plane.shift(0)
            assert plane.predict("u1").headers["x-plumb-revision"] == "stable"
            assert (recorded(), plane.metric("plumb_plane_pending", service="churn")) == ("False", 1)
            assert plane.patch(give(5)).status_code == 507
        plane.until(lambda: recorded() == "True")
        assert plane.metric("plumb_plane_pending", service="churn") == 0
        assert [line.split(":")[1] for line in plane.told if "on disk" in line] == [
            " in effect but not on disk", " on disk again",
        ]  # fmt: skip
