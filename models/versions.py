"""Registered model versions: rows of the control database, artifacts beside it.

A version exists once its row is committed, and its folder is complete before that. Versions of a model count from 1 and are
never reused, not even if a registration failed after its folder had been made. A blessed version becomes the candidate; it
becomes the champion, which is what is served, if it is promoted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from features.control_database import is_absent
from features.errors import explain
from features.workspace import Workspace
from models.aliases import Change, champion_of, current_alias, give_alias
from models.errors import VersionError
from models.lineage import Lineage, read_lineage
from models.registry import CANDIDATE, CHAMPION, VersionRow, open_session

REGISTRATION: Final = "registration"
EVALUATION_FILE: Final = "evaluation.json"
"""The evaluation among a version's artifacts."""


@dataclass(frozen=True)
class NewVersion:
    """What is known of a model when it is registered.

    Attributes:
        model: name of its spec.
        created_at_us: UTC microseconds.
        run_id: the run record that made it.
        blessed, reason: the gate's decision.
        view_key, view_hash, graph_hash: what its features are pinned to.
        metrics: headline figures.
        lineage: what it was made from; None for versions that were registered before that was kept.
    """

    model: str
    created_at_us: int
    run_id: str
    blessed: bool
    reason: str
    view_key: str
    view_hash: str
    graph_hash: str
    metrics: dict[str, float]
    lineage: Lineage | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ModelVersion(NewVersion):
    """A registered version; ``path`` is the folder of its artifacts."""

    version: int
    path: Path


@dataclass(frozen=True)
class Verdict:
    """Whether the gate found a version better than the champion, and why (not)."""

    promoted: bool
    why: str


Documents = Callable[[ModelVersion, bool], Mapping[str, str]]
"""Texts by file name, to be kept among its artifacts, about a version that did or did not become champion."""


def register(
    workspace: Workspace, new: NewVersion, artifacts: Path, *, verdict: Verdict | None = None,
    documents: Documents | None = None,
) -> ModelVersion:  # fmt: skip
    """Copy the artifacts into the workspace and commit the next version of the model, both or neither.

    A blessed version becomes the candidate. It becomes the champion if there is none, or if it is promoted over the one
    that it was judged against (``new.lineage.parent_champion``) and that one is still champion.

    Args:
        workspace: its control database is made if there is none.
        new: facts of the version.
        artifacts: folder whose content is copied.
        verdict: how it stands to the champion; None where nobody has compared them.
        documents: writes texts about the version, now that its number is known and whether it became champion.
    Raises:
        VersionError: there are no artifacts.
        StoreUnavailable: another process held the database for too long.
    """
    if not artifacts.is_dir():
        raise VersionError(
            explain("model has no artifacts", which=f"{new.model} of run {new.run_id}", expected=f"a folder {artifacts}",
                    got="none", next_step="export the model first")
        )  # fmt: skip
    folder = workspace.model(new.model, 0).parent
    folder.mkdir(parents=True, exist_ok=True)
    # The long copy happens before the database is locked; under the lock there is only a rename on one file system.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as scratch:
        copied = Path(scratch) / "artifacts"
        shutil.copytree(artifacts, copied)
        with open_session(workspace, write=True) as session:
            version = _next_version(session, new.model, folder)
            path = workspace.model(new.model, version)
            facts = {entry.name: getattr(new, entry.name) for entry in fields(NewVersion)}
            registered = ModelVersion(**facts, version=version, path=path)
            stored = facts | {"lineage": None if new.lineage is None else new.lineage.as_json()}
            session.add(VersionRow(**stored, version=version, path=str(path.relative_to(workspace.root))))
            session.flush()
            verdict = verdict or Verdict(promoted=False, why=new.reason)
            promoted = new.blessed and _give_aliases(session, registered, verdict)
            for name, text in (documents(registered, promoted) if documents else {}).items():
                (copied / name).write_text(text, encoding="utf-8")
            copied.rename(path)
            session.commit()
    return registered


def load(workspace: Workspace, model: str, version: int | None = None, *, require_blessed: bool = True) -> ModelVersion:
    """A version of a model; the champion where ``version`` is None.

    Raises:
        VersionError: there is no such version or no champion, its files are gone, or it is not blessed though it must be.
    """
    known = list_versions(workspace, model)
    wanted = champion_of(workspace, model) if version is None else version
    if wanted is None:
        blessed = [str(entry.version) for entry in known if entry.blessed]
        got = f"{len(known)} versions, {len(blessed)} of them blessed" if known else "no version at all"
        next_step = f"plumb models promote {model} {blessed[0]}" if blessed else f"train it: plumb pipelines run {model}"
        raise VersionError(
            explain("model has no champion", which=repr(model), expected="a promoted version", got=got, next_step=next_step)
        )
    found = next((entry for entry in known if entry.version == wanted), None)
    if found is None:
        raise VersionError(
            explain("model version does not exist", which=f"{model} version {wanted}",
                    expected=f"one of {', '.join(str(entry.version) for entry in known) or 'none registered'}",
                    got=str(wanted), next_step="list them: plumb models list")
        )  # fmt: skip
    if require_blessed and not found.blessed:
        raise VersionError(
            explain("model version is not blessed", which=f"{model} version {wanted}", expected="a blessed version",
                    got=f"not blessed: {found.reason}", next_step="ask for a blessed version: plumb models list")
        )  # fmt: skip
    if not found.path.is_dir():
        raise VersionError(
            explain("model version has lost its files", which=f"{model} version {wanted}", expected=f"folder {found.path}",
                    got="none", next_step="restore the folder, or promote another version")
        )  # fmt: skip
    return found


def list_versions(workspace: Workspace, model: str | None = None) -> list[ModelVersion]:
    """Versions of a model, or of all models, by name, the newest first.

    Raises:
        VersionError: the control database cannot be used.
    """
    if is_absent(workspace):
        return []
    query = select(VersionRow).order_by(VersionRow.model, VersionRow.version.desc())
    if model is not None:
        query = query.where(VersionRow.model == model)
    with open_session(workspace) as session:
        return [_as_version(workspace, row) for row in session.scalars(query)]


def _give_aliases(session: Session, registered: ModelVersion, verdict: Verdict) -> bool:
    """Whether the version became champion."""
    champion = current_alias(session, registered.model, CHAMPION)
    parent = registered.lineage.parent_champion if registered.lineage else champion
    who, why = f"{REGISTRATION} of run {registered.run_id}", verdict.why
    promoted = champion is None or (verdict.promoted and parent == champion)
    if promoted:
        change = Change(who, why, registered.created_at_us)
        give_alias(session, registered.model, CHAMPION, registered.version, change, expected=champion)
    elif verdict.promoted:
        why = f"kept a candidate, because it was judged against {parent} and {champion} is champion now; {why}"
    change = Change(who, why, registered.created_at_us)
    candidate = current_alias(session, registered.model, CANDIDATE)
    give_alias(session, registered.model, CANDIDATE, registered.version, change, expected=candidate)
    return promoted


def _next_version(session: Session, model: str, folder: Path) -> int:
    newest = session.scalar(select(func.max(VersionRow.version)).where(VersionRow.model == model)) or 0
    folders = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    return int(max([newest, *folders])) + 1


def _as_version(workspace: Workspace, row: VersionRow) -> ModelVersion:
    facts: dict[str, Any] = {entry.name: getattr(row, entry.name) for entry in fields(NewVersion)}
    facts["lineage"] = read_lineage(row.lineage)
    return ModelVersion(**facts, version=row.version, path=workspace.root / row.path)
