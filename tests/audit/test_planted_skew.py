"""Faults that are really planted while rows are served, each found by the audit with the right signal named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from audit.site import (
    ENTITY,
    MODEL,
    audit,
    import_sessions,
    make_model,
    make_site,
    run,
    serve_imported,
)
from parity.mutation import mutate

from components.skew_audit import SkewAudit
from features import matching, profile_values, profiles, stream_fold
from inference import lookup
from monitoring.skew import INTEGERS, PROFILE, REPLAY, STATE, WINDOWS
from transforms import materialize, plan


def first_of(found: SkewAudit) -> tuple[str, str]:
    """Kind and signal of the first difference; the example is one of the run's users."""
    assert found.mismatches > 0
    assert found.first is not None
    assert found.first.example is not None
    assert found.first.example.entity_id.startswith("user-")
    return found.first.kind, found.first.signal


def test_a_fold_that_counts_duplicates_is_found(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, version = make_site(tmp_path, artifacts)
    with monkeypatch.context() as planted:
        mutate(planted, stream_fold, "drop_repeats", "return repeats.drop(events)", "return events")
        run(site, version)
    # Sessions are the catalog's first signal and its most frequent event.
    assert first_of(audit(site)) == (STATE, "sessions")


def test_a_missing_value_taken_for_zero_is_found(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, version = make_site(tmp_path, artifacts)
    with monkeypatch.context() as planted:
        mutate(planted, matching, "belongs", "mask &= pc.is_valid(events[signal.value]).to_numpy()", "pass")
        run(site, version)
    found = audit(site)
    # A sum does not change by a zero, so what shows are tiles that should not be and maxima above negative values.
    assert first_of(found) == (STATE, "session_time")
    assert "sessions" not in {name for kind, name in differing(found) if kind == STATE}


def test_another_default_for_a_missing_profile_value_is_found(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, version = make_site(tmp_path, artifacts)
    with monkeypatch.context() as planted:
        default = "wanted, default = PYTHON_TYPES[field.dtype], field.default"
        other = "wanted = PYTHON_TYPES[field.dtype]; default = 'free' if field.name == 'plan' else field.default"
        mutate(planted, profile_values, "profile_column", default, other)
        planted.setattr(lookup, "profile_column", profile_values.profile_column)
        run(site, version)
    found = audit(site)
    assert first_of(found) == (PROFILE, "plan")
    assert found.mismatched[STATE] == 0
    assert "served 'free', rebuilt 'unknown'" in str(found.first)


def test_a_profile_one_version_behind_is_found(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, version = make_site(tmp_path, artifacts)
    with monkeypatch.context() as planted:
        mutate(planted, profiles, "profiles_current", 'keep="last"', 'keep="first"')
        planted.setattr(materialize, "profiles_current", profiles.profiles_current)
        run(site, version)
    found = audit(site)
    kind, signal = first_of(found)
    assert kind == PROFILE
    assert signal in ("plan", "country", "utc_offset_minutes")
    assert found.mismatched[STATE] == 0
    assert {name for kind, name in differing(found) if kind == PROFILE} == {"plan", "country", "utc_offset_minutes"}


def test_a_unit_changed_in_the_mapping_is_found(artifacts: Path, tmp_path: Path) -> None:
    site, version = make_site(tmp_path, artifacts)
    site.workspace.root.mkdir(exist_ok=True)
    import_sessions(site, 1_000)
    serve_imported(site, version)
    assert audit(site).mismatches == 0
    shutil.rmtree(site.workspace.events(ENTITY))
    import_sessions(site, 1)
    found = audit(site)
    assert first_of(found) == (STATE, "session_time")
    assert {name for kind, name in differing(found) if kind == STATE} == {"session_time"}


@pytest.fixture(scope="module")
def off_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose graph, from fitting on, has windows of one signal one tile too long."""
    plain = "window_s // resolution.period_s if resolution.period_s else 1"
    longer = "window_s // resolution.period_s + (signal.name == 'offers_shown') if resolution.period_s else 1"
    of_feature = longer.replace("signal.name", "feature.signal.name")
    with pytest.MonkeyPatch.context() as planted:
        mutate(planted, plan, "_windows_by_series", plain, longer)
        mutate(planted, plan, "_place_of", f"feature.{plain}", f"feature.{of_feature}")
        return make_model(tmp_path_factory.mktemp("off-by-one") / "m")


def test_a_window_off_by_one_tile_is_found_though_training_and_serving_agree_on_it(off_by_one: Path, tmp_path: Path) -> None:
    site, version = make_site(tmp_path, off_by_one)
    run(site, version)
    found = audit(site)
    assert first_of(found) == (WINDOWS, "offers_shown")
    assert found.mismatched[STATE] == found.mismatched[INTEGERS] == 0
    assert differing(found) == {(WINDOWS, "offers_shown")}


def test_rows_of_another_graph_than_the_registered_one_are_found(artifacts: Path, off_by_one: Path, tmp_path: Path) -> None:
    """Rows served by the one model, its folder overwritten by the other."""
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    folder = site.workspace.model(MODEL, version) / "saved_model"
    shutil.rmtree(folder)
    shutil.copytree(off_by_one / "saved_model", folder)
    found = audit(site)
    assert first_of(found) == (INTEGERS, "offers_shown")
    assert found.mismatched[STATE] == found.mismatched[WINDOWS] == 0


def differing(found: SkewAudit) -> set[tuple[str, str]]:
    """(kind, signal) of every difference to the replay."""
    return {
        (row["kind"], row["signal"])
        for row in found.differences.to_pylist()
        if row["differing"] and row["comparison"] == REPLAY
    }
