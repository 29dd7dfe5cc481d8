"""Values to put into online stores, and how the contract tests put them there."""

from __future__ import annotations

from features.online.store import OnlineStore, Watermark
from features.partitions import partition_of

PARTITIONS = 4


def state(value: int, records: int = 2) -> bytes:
    return value.to_bytes(8, "little") * 2 * records


def shard_of(entity_id: str) -> int:
    return int(partition_of([entity_id], PARTITIONS)[0])


def ids_of(shard: int, count: int) -> list[str]:
    return [name for name in (f"u{i}" for i in range(50 * count)) if shard_of(name) == shard][:count]


def put(store: OnlineStore, states: dict[str, bytes], profiles: dict[str, bytes] | None = None, offset: int = 10) -> None:
    """Commit values to the shards that they belong to, each shard then stands at ``offset``."""
    for shard in range(PARTITIONS):
        own = {name: value for name, value in states.items() if shard_of(name) == shard}
        also = {name: value for name, value in (profiles or {}).items() if shard_of(name) == shard}
        before = store.watermark(shard)
        after = Watermark(offset, 1_000_000 * offset, 2_000_000 * offset, before.epoch)
        store.commit(shard, own, also, after, expected_previous=before.log_offset)


def commit(store: OnlineStore, shard: int, offset: int, *names: str) -> None:
    before = store.watermark(shard)
    after = Watermark(offset, offset, before.as_of_us, before.epoch)
    store.commit(shard, {name: state(offset) for name in names}, {}, after, expected_previous=before.log_offset)
