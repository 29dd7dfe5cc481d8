"""Counts of another entity that stand in a request: what a view's caller names by an id, and nobody sends.

A user is scored for a campaign. What is known of the user is her state; what is known of the campaign is a state, too, with a
log, a stream and a store of its own. The caller sends the campaign's id; training rows, batch and servers put the finished
counts of its state into the request, all by the graph of ``transforms.joined``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.declarations import Field, View


@dataclass(frozen=True)
class Join:
    """Request fields that are finished from another entity's state as of ``now``; zeros where it has none.

    Attributes:
        view: name of a view of that entity, in the same catalog.
        key: name under which a caller sends the entity's id, and under which touches carry it; no feature. Empty for none.
        fields: finished integers of that view, none of them a time; each is an int64 field of the request, too.
    """

    view: str
    key: str
    fields: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Of a SavedModel: ``state`` and ``now`` of shape (n,) to int64 (n,) for each of the fields."""
        return f"joined_by_{self.key}"


def joined_names(view: View) -> frozenset[str]:
    """Request fields that joins fill in."""
    return frozenset(name for join in view.joins for name in join.fields)


def content_fields(view: View) -> tuple[Field, ...]:
    """Request fields that the caller sends, without the keys of joins."""
    filled = joined_names(view)
    return tuple(entry for entry in view.request if entry.name not in filled)
