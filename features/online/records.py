"""What both adapters of the online store share: keys, the position's record, and what a commit must fulfil."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final
from zlib import crc32

from features import layout
from features.errors import StoreError, explain
from features.online.store import (
    MAX_ENTITY_ID_BYTES,
    NO_OFFSET,
    ChangeCursor,
    Changes,
    CommitConflict,
    EntityIdError,
    Watermark,
)
from features.partitions import PARTITION_HASH

STORE_FORMAT: Final = 3
WATERMARK_RECORD: Final = struct.Struct("<6q")


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


def encode_entity_ids(entity_ids: Sequence[str]) -> list[bytes]:
    """``encode_entity_id`` of many, several times faster.

    Raises:
        EntityIdError: an id is empty, too long, or no valid text.
    """
    try:
        keys = list(map(str.encode, entity_ids))
    except UnicodeEncodeError:
        keys = [encode_entity_id(entity_id) for entity_id in entity_ids]
    if not all(keys) or (keys and max(map(len, keys)) > MAX_ENTITY_ID_BYTES):
        keys = [encode_entity_id(entity_id) for entity_id in entity_ids]
    return keys


def group_by_shard(entity_ids: Sequence[str], partitions: int) -> dict[int, list[bytes]]:
    """Stored keys of the distinct ids by the shard that holds them."""
    keys_of: dict[int, list[bytes]] = {}
    for key in dict.fromkeys(encode_entity_ids(entity_ids)):
        keys_of.setdefault(crc32(key) % partitions, []).append(key)
    return keys_of


def keyed_values(shard: int, partitions: int, values: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    """Values under their stored keys, in key order.

    Raises:
        StoreError: an entity belongs to another shard.
    """
    keys = encode_entity_ids(list(values))
    strange = next((key for key in keys if crc32(key) % partitions != shard), None)
    if strange is not None:
        raise StoreError(
            explain("entity belongs to another shard", which=repr(strange.decode()), expected=f"shard {shard}",
                    got=f"shard {crc32(strange) % partitions}", next_step="partition entities by their id")
        )  # fmt: skip
    return sorted(zip(keys, values.values(), strict=True))


def check_states(states: Sequence[tuple[bytes, bytes]], which: str) -> None:
    """Refuse state bytes that are no whole number of records.

    Raises:
        StoreError: a state is truncated.
    """
    for key, state in states:
        if len(state) % layout.RECORD_BYTES:
            raise StoreError(
                explain("state is truncated", which=f"{key.decode()!r} for {which}",
                        expected=f"a multiple of {layout.RECORD_BYTES} bytes", got=f"{len(state)} bytes",
                        next_step="fold the entity again")
            )  # fmt: skip


def check_identity(which: str, expected: Mapping[str, object], stored: Mapping[str, object]) -> None:
    """Refuse a store whose bytes would not mean what the reader takes them for.

    Raises:
        StoreError: an entry of ``expected`` is stored otherwise.
    """
    for name, value in expected.items():
        if stored.get(name) != value:
            raise StoreError(
                explain(f"online store is of another {name.replace('_', ' ')}", which=which, expected=f"{value!r}",
                        got=repr(stored.get(name)), next_step="materialize into another store, or serve the fitting view")
            )  # fmt: skip


def identify(view_key: str, view_hash: str, partitions: int) -> dict[str, object]:
    """What must be equal for the stored bytes to mean what the reader takes them for."""
    return {
        "store_format": STORE_FORMAT,
        "state_format": layout.FORMAT_VERSION,
        "partition_hash": PARTITION_HASH,
        "partitions": partitions,
        "view_key": view_key,
        "view_hash": view_hash,
    }


def pack_watermark(watermark: Watermark) -> bytes:
    """The shard's position as stored: six little-endian int64."""
    return WATERMARK_RECORD.pack(
        watermark.log_offset, watermark.ingest_time_us, watermark.as_of_us, watermark.epoch, watermark.filling_to,
        watermark.profiles_as_of_us,
    )  # fmt: skip


def unpack_watermark(record: bytes | memoryview | None) -> Watermark:
    """The position of a shard; that of an untouched one where nothing is stored.

    Raises:
        StoreError: the stored bytes are no position.
    """
    if not record:
        return Watermark()
    if len(record) != WATERMARK_RECORD.size:
        raise StoreError(
            explain("stored position is damaged", which="online store", expected=f"{WATERMARK_RECORD.size} bytes",
                    got=f"{len(record)} bytes", next_step="materialize into another store")
        )  # fmt: skip
    return Watermark(*WATERMARK_RECORD.unpack(record))


def check_position(stored: Watermark, new: Watermark, expected_previous: int, which: str) -> None:
    """Allow a commit only by the shard's present writer, from where it stands, and never backwards.

    Raises:
        CommitConflict: another writer has moved or taken over the shard.
        StoreError: the new position lies before the old one, or an unfinished fill leads elsewhere.
    """
    if (stored.epoch, stored.log_offset) != (new.epoch, expected_previous):
        raise CommitConflict(
            explain("commit conflicts with another writer", which=which,
                    expected=f"epoch {new.epoch} at log offset {expected_previous}",
                    got=f"epoch {stored.epoch} at log offset {stored.log_offset}",
                    next_step="claim the shard and continue from the position that it returns")
        )  # fmt: skip
    if new.log_offset < stored.log_offset or new.as_of_us < stored.as_of_us:
        raise StoreError(
            explain("commit would move a shard backwards", which=which,
                    expected=f"log offset >= {stored.log_offset} as of >= {stored.as_of_us}",
                    got=f"log offset {new.log_offset} as of {new.as_of_us}",
                    next_step="fill an empty store to hold an earlier state")
        )  # fmt: skip
    if new.filling_to == NO_OFFSET != stored.filling_to != new.log_offset:
        raise StoreError(
            explain("shard is half filled", which=which, got=f"log offset {new.log_offset}", next_step="materialize again",
                    expected=f"the end of the unfinished fill, log offset {stored.filling_to}")
        )  # fmt: skip


def changed_entities(stored: Watermark, new: Watermark, names: set[str]) -> set[str] | None:
    """What the changelog says of a commit: which entities it changed, None for "any" while a fill is under way."""
    return None if max(stored.filling_to, new.filling_to) != NO_OFFSET else names


def collect_changes(entries: Sequence[tuple[ChangeCursor, Sequence[str] | None]]) -> Changes:
    """Changelog entries as one answer.

    Args:
        entries: in the changelog's order, the first being the one that the reader had seen; None stands for any entity.
    """
    newer = [names for _, names in entries[1:]]
    named = dict.fromkeys(name for names in newer if names is not None for name in names)
    return Changes(tuple(named), entries[-1][0], all(names is not None for names in newer))
