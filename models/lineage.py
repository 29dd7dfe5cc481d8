"""What a version was made from: enough to say why it scores as it does, and to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.specs import ModelSpec


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from. All times are UTC microseconds.

    Attributes:
        catalog: of the declarations.
        tables: Delta version by table, the event log and every profile; -1 where nothing was ever written.
        log_end_us: newest ingest_time of the event log when the rows were made.
        known_at_us: nothing that became known later entered training; the served network has learned from outcomes up to it.
        test_begins_us: when the test rows begin; the evaluated network has learned nothing that became known later.
        rows: training rows and positives by split.
        code: package version, and where it ran in a checkout, git commit and whether files differed.
        label, population, cutoffs, learning, network: the parts of the spec that it was trained by, as JSON.
        seed: of weights, shuffling and bootstrap.
        parent_champion: version that was champion when this one was judged; None where there was none.
    """

    catalog: str
    tables: Mapping[str, int]
    log_end_us: int
    known_at_us: int
    test_begins_us: int
    rows: Mapping[str, int]
    code: Mapping[str, str | bool | None]
    label: Mapping[str, Any]
    population: Mapping[str, Any]
    cutoffs: Mapping[str, Any]
    learning: Mapping[str, Any]
    network: Mapping[str, Any]
    seed: int
    parent_champion: int | None

    def as_json(self) -> dict[str, Any]:
        """For the control database; ``read_lineage`` is its inverse."""
        return asdict(self)


def trace(
    spec: ModelSpec, rows_metadata: Mapping[str, Any], *, code: Mapping[str, str | bool | None], seed: int,
    parent_champion: int | None,
) -> Lineage:  # fmt: skip
    """The lineage of a network that was trained by a spec on rows.

    Args:
        rows_metadata: what the rows' step wrote beside them; whole numbers may have become floats on their way through KFP.
    """
    tables = {name: int(value) for name, value in rows_metadata.items() if name.startswith(("events/", "profiles/"))}
    counts = {name: int(value) for name, value in rows_metadata.items() if name.startswith(("rows_", "positives_"))}
    parts = {name: jsonable(getattr(spec, name)) for name in ("label", "population", "cutoffs", "learning", "network")}
    return Lineage(
        catalog=str(rows_metadata["catalog"]), tables=tables, log_end_us=int(rows_metadata["log_end_us"]),
        known_at_us=int(rows_metadata["known_at_us"]), test_begins_us=int(rows_metadata["test_begins_us"]),
        rows=counts, code=dict(code),
        seed=seed, parent_champion=parent_champion, **parts,
    )  # fmt: skip


def read_lineage(stored: Mapping[str, Any] | None) -> Lineage | None:
    """What ``as_json`` gave; None for versions that were registered before lineage was kept."""
    return None if stored is None else Lineage(**stored)


def jsonable(part: Any) -> dict[str, Any]:
    """A part of a spec as JSON keeps it: tuples become lists.

    Example:
        >>> from models.specs import Learning
        >>> jsonable(Learning(delay_buckets_s=(60,)))["delay_buckets_s"]
        [60]
    """
    plain: dict[str, Any] = asdict(part, dict_factory=lambda pairs: {name: _plain(value) for name, value in pairs})
    return plain


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
