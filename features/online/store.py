"""What an online store promises: one view version's states, profile values and positions, sharded by entity.

A shard holds the entities of one log partition (``features.partitions``), so one writer folds one partition into one
shard. A commit is a compare-and-set on (writer epoch, previous log offset) and is atomic with the values: a writer that
restarts continues from the store's own position, and a writer that was replaced cannot write any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from features.errors import StoreError, explain

MAX_ENTITY_ID_BYTES: Final = 511
"""The longest entity id, as UTF-8, that every store takes: LMDB's limit for a key."""

NO_OFFSET: Final = -1
"""The log offset of a shard into which nothing has been folded yet."""


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
    """

    log_offset: int = NO_OFFSET
    ingest_time_us: int = 0
    as_of_us: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answer to one batch read, row i for the i-th id asked for.

    Attributes:
        states: state bytes, ``b""`` for an entity without state.
        profiles: a JSON object of profile values, None for an entity without any.
        shards: the shard that holds the entity.
        watermarks: position of every shard that was read, from the same snapshot as its values.
    """

    states: list[bytes]
    profiles: list[bytes | None]
    shards: list[int]
    watermarks: dict[int, Watermark]


class OnlineStore(Protocol):
    """One view version's values for reading and writing by entity; a context manager that closes itself.

    Every adapter passes ``tests/contracts/test_online_store.py``.
    """

    @property
    def view_key(self) -> str: ...

    @property
    def view_hash(self) -> str: ...

    @property
    def partitions(self) -> int: ...

    def get_many(self, entity_ids: Sequence[str]) -> Lookup:
        """Read states, profiles and positions of many entities at once; ids may repeat and keep their order.

        Raises:
            EntityIdError: an id is empty, too long, or no valid text.
            StoreError: stored bytes are damaged.
            StoreUnavailable: the store cannot answer now.
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
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def encode_entity_id(entity_id: str) -> bytes:
    """The id as the bytes under which it is stored.

    Raises:
        EntityIdError: it is empty, too long, or no valid text.
    """
    try:
        key = entity_id.encode()
    except UnicodeEncodeError as error:
        raise EntityIdError(
            explain("entity id is no valid text", which=ascii(entity_id)[:80], expected="text that UTF-8 can encode",
                    got=error.reason, next_step="send the id as valid Unicode text")
        ) from error  # fmt: skip
    if not 0 < len(key) <= MAX_ENTITY_ID_BYTES:
        raise EntityIdError(
            explain("entity id has a length that no store can hold", which=repr(entity_id[:40]),
                    expected=f"1 to {MAX_ENTITY_ID_BYTES} bytes of UTF-8", got=f"{len(key)} bytes",
                    next_step="use the id under which the events were imported")
        )  # fmt: skip
    return key


def check_position(stored: Watermark, new: Watermark, expected_previous: int, which: str) -> None:
    """Allow a commit only by the shard's present writer, from where it stands, and never backwards.

    Raises:
        CommitConflict: another writer has moved or taken over the shard.
        StoreError: the new position lies before the old one.
    """
    if (stored.epoch, stored.log_offset) != (new.epoch, expected_previous):
        raise CommitConflict(
            explain("commit conflicts with another writer", which=which,
                    expected=f"epoch {new.epoch} at log offset {expected_previous}",
                    got=f"epoch {stored.epoch} at log offset {stored.log_offset}",
                    next_step="claim the shard and continue from the position that it returns")
        )  # fmt: skip
    if new.log_offset < stored.log_offset:
        raise StoreError(
            explain("commit would move a shard backwards", which=which, expected=f"log offset >= {stored.log_offset}",
                    got=str(new.log_offset), next_step="fill an empty folder to hold an earlier state")
        )  # fmt: skip
