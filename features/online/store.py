"""What an online store promises: one view version's states, profile values and positions, sharded by entity.

A shard holds the entities of one log partition (``features.partitions``), so one writer folds one partition into one
shard. A commit is a compare-and-set on (writer epoch, previous log offset) and is atomic with the values: a writer that
restarts continues from the store's own position, and a writer that was replaced cannot write any more. Each commit also
enters the names of the changed entities into the shard's bounded changelog, which subscribers read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from features.errors import StoreError

MAX_ENTITY_ID_BYTES: Final = 511
"""The longest entity id, as UTF-8, that every store takes: LMDB's limit for a key."""

NO_OFFSET: Final = -1
"""The log offset of a shard into which nothing has been folded yet."""

MIXED: Final = -1
"""``Watermark.profiles_as_of_us`` of profile values that are of no single time."""

CHANGELOG_COMMITS: Final = 256
"""How many of its newest commits a shard's changelog holds."""


class CommitConflict(StoreError):
    """The shard is not where the writer left it: another writer has moved it or has taken it over."""


class EntityIdError(StoreError):
    """An entity id that no store can hold: empty, too long, or no valid text."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a shard has been filled.

    Attributes:
        log_offset: offset of the last event folded in, ``NO_OFFSET`` before the first.
        ingest_time_us: ingest_time of that event, UTC microseconds.
        as_of_us: the shard holds every event that was known at this time, UTC microseconds; freshness is measured
            from it.
        epoch: number of the writer that committed; every ``claim`` adds one.
        filling_to: while a fill of several commits is under way, the log offset that it leads to, else ``NO_OFFSET``.
            Some states then stand at that offset already, so only the same fill, repeated, may go on from here.
        profiles_as_of_us: the shard's profile values are those known at this time, UTC microseconds; 0 before the first
            fill, ``MIXED`` where values of several fills stand together in one answer.
    """

    log_offset: int = NO_OFFSET
    ingest_time_us: int = 0
    as_of_us: int = 0
    epoch: int = 0
    filling_to: int = NO_OFFSET
    profiles_as_of_us: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answer to one batch read, row i for the i-th id asked for.

    Attributes:
        states: state bytes, ``b""`` for an entity without state.
        profiles: a JSON object of profile values, None for an entity without any.
        shards: the shard that holds the entity.
        watermarks: position of every shard that was read, from the same snapshot as its values. Where some values are
            node-local copies, the oldest position among them; absent where nothing of the shard is known.
        degraded: why the value is not the store's own of this moment, None where it is.
    """

    states: list[bytes]
    profiles: list[bytes | None]
    shards: list[int]
    watermarks: dict[int, Watermark]
    degraded: list[str | None]


class ChangeCursor(NamedTuple):
    """An entry of a shard's changelog: the log offset that its commit led to, and its number among those of that offset."""

    log_offset: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in a shard since an earlier look.

    Attributes:
        entity_ids: changed or erased entities, each once.
        cursor: where to go on from, None for a shard without any entry.
        complete: whether ``entity_ids`` are all that changed. They are not after more commits than the changelog holds,
            after a fill, on a first look, or when the store lost commits and went back: then look at every entity.
    """

    entity_ids: tuple[str, ...]
    cursor: ChangeCursor | None
    complete: bool


class OnlineReader(Protocol):
    """One view version's values for reading by entity."""

    @property
    def view_key(self) -> str: ...

    @property
    def partitions(self) -> int: ...

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        """Read states, profiles and positions of many entities at once; ids may repeat and keep their order.

        Args:
            profiles: False leaves the profile values unread, for a view that has none.

        Raises:
            EntityIdError: an id is empty, too long, or no valid text.
            StoreError: stored bytes are damaged.
            StoreUnavailable: the store cannot answer now.
        """


class OnlineStore(OnlineReader, Protocol):
    """One view version's values for reading and writing by entity; a context manager that closes itself.

    Every adapter passes ``tests/contracts/test_online_store.py``.
    """

    @property
    def view_hash(self) -> str: ...

    def get_views(self, wanted: Sequence[tuple[OnlineStore, Sequence[str]]]) -> list[Lookup]:
        """Read several view versions for one model in one round trip, each with its own entities.

        Args:
            wanted: stores of the same kind and address, this one among them or not, with the ids to read from each.

        Raises:
            StoreError: a store is of another kind or address, or stored bytes are damaged.
            EntityIdError, StoreUnavailable: as ``get_many``.
        """

    def watermark(self, shard: int) -> Watermark:
        """Position of one shard."""

    def claim(self, shard: int) -> Watermark:
        """Take a shard over as its only writer; from now on commits of earlier writers conflict.

        Returns:
            The shard's position with the new writer's epoch.
        """

    def commit(
        self,
        shard: int,
        states: Mapping[str, bytes],
        profiles: Mapping[str, bytes],
        watermark: Watermark,
        *,
        expected_previous: int,
    ) -> None:
        """Write values and the new position together, or nothing.

        Args:
            shard: all entities must belong to it.
            states: new state by entity id; an empty one erases the entity's state.
            profiles: new JSON object of profile values by entity id; an empty one erases it.
            watermark: the position after this commit; its epoch is the writer's own.
            expected_previous: the log offset that the shard must still be at.

        Raises:
            CommitConflict: the shard is at another offset or belongs to another writer's epoch.
            StoreError: a value does not belong here, or the store is full.
            StoreUnavailable: the store did not answer; the commit is there as a whole or not at all, ``watermark`` says.
        """

    def changes(self, shard: int, after: ChangeCursor | None = None) -> Changes:
        """Which entities of a shard were committed or erased since ``after``; None asks where the changelog stands."""

    def entities(self, shard: int, page: int = 4_096) -> Iterator[list[str]]:
        """Names of all entities of a shard that have a state or profile values, about ``page`` at a time.

        For whoever keeps results of all entities. One that comes or goes meanwhile may be named or not; the changelog names it.
        """

    def erase(self, entity_ids: Sequence[str]) -> int:
        """Delete states and profile values of these entities at once, whoever the shards' writer is.

        Positions stay. A writer that holds a state in memory must drop it by the deletion marker in its log.

        Returns:
            How many of the entities had a state or profile values.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
