"""Champion and candidate: which version of a model an alias means, and the history of how it came to.

There is no other record of an alias than its history: it stands where the newest promotion put it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from features.control_database import is_absent
from features.errors import explain
from features.workspace import Workspace
from models.errors import VersionError
from models.registry import CANDIDATE, CHAMPION, PromotionRow, VersionRow, open_session

Alias = Literal["champion", "candidate"]
ALIASES: Final[tuple[Alias, ...]] = (CHAMPION, CANDIDATE)


@dataclass(frozen=True)
class Change:
    """Who gives an alias, why, and when (UTC microseconds)."""

    who: str
    why: str
    at_us: int


@dataclass(frozen=True)
class Promotion:
    """An alias was given to a version; ``from_version`` had it before, None where none had."""

    model: str
    alias: Alias
    sequence: int
    from_version: int | None
    to_version: int
    who: str
    why: str
    at_us: int


def promote(workspace: Workspace, model: str, version: int, change: Change, *, expected: int | None) -> Promotion:
    """Make a blessed version the champion.

    Args:
        expected: the version that the caller believes to be champion, None for none. Where another one is, somebody else
            has promoted meanwhile, and nothing is done.
    Raises:
        VersionError: no such version, it is not blessed or is champion already, its files are gone, or the champion is
            not the expected one.
    """
    if not change.why.strip():
        raise VersionError(
            explain("promotion has no reason", which=f"{model} version {version}", expected="why it is promoted", got="nothing",
                    next_step="give one with --why")
        )  # fmt: skip
    with open_session(workspace, write=True) as session:
        check_promotable(session, workspace, model, version)
        promotion = give_alias(session, model, CHAMPION, version, change, expected=expected)
        session.commit()
        return promotion


def list_aliases(workspace: Workspace, model: str | None = None) -> list[Promotion]:
    """The newest promotion of every alias: where it stands. By model, the champion first."""
    newest = {(entry.model, entry.alias): entry for entry in reversed(history(workspace, model))}
    return sorted(newest.values(), key=lambda entry: (entry.model, ALIASES.index(entry.alias)))


def champion_of(workspace: Workspace, model: str) -> int | None:
    """The champion's version, None where the model has none."""
    return next((entry.to_version for entry in list_aliases(workspace, model) if entry.alias == CHAMPION), None)


def history(workspace: Workspace, model: str | None = None) -> list[Promotion]:
    """Every promotion of a model, or of all, the newest first."""
    if is_absent(workspace):
        return []
    query = select(PromotionRow).order_by(PromotionRow.id.desc())
    if model is not None:
        query = query.where(PromotionRow.model == model)
    with open_session(workspace) as session:
        return [_as_promotion(row) for row in session.scalars(query)]


def give_alias(session: Session, model: str, alias: Alias, version: int, change: Change, *, expected: int | None) -> Promotion:
    """Append a promotion in a writing session; the caller commits.

    Raises:
        VersionError: the alias does not stand where it is expected, or stands at the version already.
    """
    query = select(PromotionRow).where(PromotionRow.model == model, PromotionRow.alias == alias)
    newest = session.scalars(query.order_by(PromotionRow.sequence.desc()).limit(1)).first()
    current = None if newest is None else newest.to_version
    if current != expected:
        raise VersionError(
            explain(f"{alias} has changed meanwhile", which=model, expected=_show(expected), got=_show(current),
                    next_step=f"look at it again: plumb models history {model}")
        )  # fmt: skip
    if current == version:
        raise VersionError(
            explain(f"model version is the {alias} already", which=f"{model} version {version}", expected="another version",
                    got=str(version), next_step=f"nothing is to be done; see plumb models history {model}")
        )  # fmt: skip
    row = PromotionRow(
        model=model, alias=alias, sequence=1 if newest is None else newest.sequence + 1, from_version=current,
        to_version=version, who=change.who, why=change.why, at_us=change.at_us,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _as_promotion(row)


def current_alias(session: Session, model: str, alias: Alias) -> int | None:
    """The version that an alias means within a session, None for none."""
    query = select(PromotionRow.to_version).where(PromotionRow.model == model, PromotionRow.alias == alias)
    return session.scalars(query.order_by(PromotionRow.sequence.desc()).limit(1)).first()


def check_promotable(session: Session, workspace: Workspace, model: str, version: int) -> None:
    """Raise ``VersionError`` unless the version exists, is blessed and has its files."""
    rows = {row.version: row for row in session.scalars(select(VersionRow).where(VersionRow.model == model))}
    which, next_step = f"{model} version {version}", "list them: plumb models list"
    if version not in rows:
        known = ", ".join(str(number) for number in sorted(rows, reverse=True)) or "none registered"
        raise VersionError(
            explain("model version does not exist", which=which, expected=f"one of {known}", got=str(version),
                    next_step=next_step)
        )  # fmt: skip
    if not rows[version].blessed:
        raise VersionError(
            explain("model version is not blessed", which=which, expected="a blessed version",
                    got=f"not blessed: {rows[version].reason}", next_step="promote a blessed version: plumb models list")
        )  # fmt: skip
    folder = workspace.root / rows[version].path
    if not folder.is_dir():
        raise VersionError(
            explain("model version has lost its files", which=which, expected=f"folder {folder}", got="none",
                    next_step="restore the folder or promote another version")
        )  # fmt: skip


def _as_promotion(row: PromotionRow) -> Promotion:
    return Promotion(**{name: getattr(row, name) for name in Promotion.__dataclass_fields__})


def _show(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
