"""The event log on Kafka: one topic an entity type, one JSON object a message, partition by our named hash.

The partition is always given, never left to a client's default: librdkafka's CRC-32 and Java's murmur2 differ.
``event_time`` is an integer, UTC microseconds; ingest_time is the message's timestamp, in Kafka whole milliseconds. Where
producers other than ``append`` write to the topic, let the broker stamp (``message.timestamp.type=LogAppendTime``),
because clocks disagree. Offsets must be dense: no transactions, no compaction of the topic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from features.errors import EventLogError, StoreUnavailable, explain
from features.event_log.port import STAMPED, check_sent
from features.rows import TIME

TIMEOUT_S: Final = 30.0
POLL_MESSAGES: Final = 10_000
ELECTING: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
"""What a broker answers while a partition has no leader that it knows of."""
ATTEMPTS: Final = 50
PAUSE_S: Final = 0.2
US_PER_MS: Final = 1_000
EVERYWHERE: Final[dict[str, Any]] = {"log_level": 3, "error_cb": lambda error: None}
"""librdkafka's own chatter is off; what concerns us comes back as an exception."""


class KafkaLog:
    """``features.event_log.port.EventLog`` on one Kafka topic; an append returns once all in-sync replicas have it."""

    def __init__(self, servers: str, topic: str, partitions: int) -> None:
        self.topic = topic
        self.partitions = partitions
        self._servers = servers
        self._producer: Producer | None = None
        self._consumers: dict[int, Consumer] = {}
        self._last_us: dict[int, int] = {}

    @classmethod
    def create(
        cls, servers: str, topic: str, partitions: int, *, replicas: int = 1, stamped_by: Literal["writer", "broker"] = "broker"
    ) -> Self:
        """Open a topic's log, and make the topic where there is none.

        Args:
            replicas: of each partition.
            stamped_by: ``writer`` lets ``append`` give its own time, for one writer a partition and for replays.
        """
        stamp = {"writer": "CreateTime", "broker": "LogAppendTime"}[stamped_by]
        config = {"message.timestamp.type": stamp, "retention.ms": "-1"}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=config)
        client = AdminClient({"bootstrap.servers": servers, **EVERYWHERE})
        try:
            client.create_topics([new])[topic].result(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _unavailable(servers, error) from error
        _await_leaders(client, servers, topic)
        return cls.open(servers, topic, partitions)

    @classmethod
    def open(cls, servers: str, topic: str, partitions: int) -> Self:
        """Open a topic that is there.

        Raises:
            EventLogError: it has another number of partitions, or does not exist.
            StoreUnavailable: no broker answers.
        """
        try:
            found = (
                AdminClient({"bootstrap.servers": servers, **EVERYWHERE}).list_topics(topic, timeout=TIMEOUT_S).topics[topic]
            )
        except KafkaException as error:
            raise _unavailable(servers, error) from error
        if len(found.partitions) != partitions:
            raise EventLogError(
                explain("topic is partitioned differently", which=f"{topic!r} on {servers}", expected=str(partitions),
                        got=str(len(found.partitions)), next_step="make the topic with the catalog's number of partitions")
            )  # fmt: skip
        return cls(servers, topic, partitions)

    def append(self, partition: int, events: pa.Table, *, now_us: int) -> range:
        check_sent(events, f"topic {self.topic}")
        end = self.end_offset(partition)
        if not events.num_rows:
            return range(end, end)
        stamp_us = max(now_us, self._last_us.get(partition, 0), self._newest_us(partition, end))
        self._last_us[partition] = stamp_us
        stamp_ms = max(stamp_us // US_PER_MS, 1)  # 0 would mean the client's own clock
        offsets: list[int] = []
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, sent: Message) -> None:
            if error:
                failures.append(error)
            else:
                offsets.append(int(sent.offset() or 0))

        for row in _as_json(events):
            message: dict[str, Any] = {"value": orjson.dumps(row), "key": str(row.get("entity_id")), "timestamp": stamp_ms}
            while True:
                try:
                    self._writer.produce(self.topic, partition=partition, on_delivery=delivered, **message)
                except BufferError:
                    self._writer.poll(0.1)
                    continue
                break
        self._writer.flush(TIMEOUT_S)
        if failures or len(offsets) != events.num_rows:
            raise _unavailable(self._servers, KafkaException(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT)))
        return range(min(offsets), max(offsets) + 1)

    def read(self, partition: int, from_offset: int, limit: int) -> list[pa.Table]:
        start, end = self._bounds(partition)
        if not start <= from_offset <= end:
            raise EventLogError(
                explain("offset is not in the event log", which=f"partition {partition} of topic {self.topic}",
                        expected=f"{start} to {end}", got=str(from_offset),
                        next_step="materialize the view from the batch log first" if from_offset < start
                        else "restore the topic: the reader has seen more of it")
            )  # fmt: skip
        messages = self._consume(partition, from_offset, min(limit, end - from_offset))
        times_us = [int(message.timestamp()[1]) * US_PER_MS for message in messages]
        if times_us != sorted(times_us):
            raise EventLogError(
                explain("ingest times go back", which=f"partition {partition} of topic {self.topic} from offset {from_offset}",
                        expected="timestamps by one clock", got="those of several producers",
                        next_step="set the topic's message.timestamp.type to LogAppendTime")
            )  # fmt: skip
        offsets = [int(message.offset() or 0) for message in messages]
        rows = [_parse(message.value()) for message in messages]
        return list(_tables(rows, times_us, offsets))

    def start_offset(self, partition: int) -> int:
        return self._bounds(partition)[0]

    def end_offset(self, partition: int) -> int:
        return self._bounds(partition)[1]

    def offset_at(self, partition: int, ingest_us: int) -> int:
        asked = TopicPartition(self.topic, partition, max(ingest_us, 0) // US_PER_MS)
        try:
            (found,) = self._reader(partition).offsets_for_times([asked], timeout=TIMEOUT_S)
        except KafkaException as error:
            raise _unavailable(self._servers, error) from error
        return int(found.offset) if found.offset >= 0 else self.end_offset(partition)

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()
        self._producer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _writer(self) -> Producer:
        if self._producer is None:
            settings = {"bootstrap.servers": self._servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5}
            self._producer = Producer({**settings, **EVERYWHERE})
        return self._producer

    def _reader(self, partition: int) -> Consumer:
        """One consumer a partition, so that going on with one does not throw away what was fetched of another."""
        if partition not in self._consumers:
            # The group is required by the client and never joined: positions are the store's.
            settings = {"bootstrap.servers": self._servers, "group.id": "plumbline", "enable.auto.commit": False}
            consumer = Consumer({**settings, "auto.offset.reset": "error", "fetch.wait.max.ms": 20, **EVERYWHERE})
            consumer.assign([TopicPartition(self.topic, partition, 0)])
            self._consumers[partition] = consumer
        return self._consumers[partition]

    def _bounds(self, partition: int) -> tuple[int, int]:
        """First offset and end; asked again while a partition has no leader, as just after its topic was made."""
        place = TopicPartition(self.topic, partition)
        for attempt in range(ATTEMPTS):
            try:
                low, high = self._reader(partition).get_watermark_offsets(place, timeout=TIMEOUT_S)
            except KafkaException as error:
                if attempt + 1 == ATTEMPTS or error.args[0].code() not in ELECTING:
                    raise _unavailable(self._servers, error) from error
                time.sleep(PAUSE_S)
            else:
                return int(low), int(high)
        raise RuntimeError("no attempt was made")

    def _newest_us(self, partition: int, end: int) -> int:
        """Timestamp of the last message, for a writer that goes on where another ended."""
        if partition in self._last_us or end == self.start_offset(partition):
            return 0
        (last,) = self._consume(partition, end - 1, 1)
        return int(last.timestamp()[1]) * US_PER_MS

    def _consume(self, partition: int, from_offset: int, count: int) -> list[Message]:
        consumer = self._reader(partition)
        messages: list[Message] = []
        try:
            (place,) = consumer.position([TopicPartition(self.topic, partition)])
            if count and place.offset != from_offset:
                consumer.assign([TopicPartition(self.topic, partition, from_offset)])
            while len(messages) < count:
                got = consumer.consume(min(count - len(messages), POLL_MESSAGES), timeout=TIMEOUT_S)
                if not got:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for message in got:
                    if (problem := message.error()) is not None:
                        raise KafkaException(problem)
                messages += got
        except KafkaException as error:
            raise _unavailable(self._servers, error) from error
        return messages


def _as_json(events: pa.Table) -> list[dict[str, Any]]:
    """Rows without their nulls, times as microseconds."""
    at = events.column_names.index("event_time")
    column = events["event_time"]
    if pa.types.is_timestamp(column.type):
        events = events.set_column(at, "event_time", column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64()))
    return [{name: value for name, value in row.items() if value is not None} for row in events.to_pylist()]


def _parse(value: bytes | str | None) -> dict[str, Any]:
    """A message's object; what is none is kept as text under a name that no catalog declares."""
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return {"malformed": text}
    return {name: _scalar(each) for name, each in found.items() if each is not None and name not in STAMPED}


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        return orjson.dumps(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        return float(value)
    return value


def _tables(rows: list[dict[str, Any]], times_us: list[int], offsets: list[int]) -> Iterator[pa.Table]:
    """Rows as tables in which every column has one type."""
    start = 0
    while start < len(rows):
        count, types = _count_alike(rows[start:])
        part = rows[start : start + count]
        columns = {name: pa.array([row.get(name) for row in part]) for name in types}
        if types.get("event_time") is int:
            columns["event_time"] = columns["event_time"].cast(TIME)
        columns["ingest_time"] = pa.array(np.array(times_us[start : start + count]), pa.int64()).cast(TIME)
        columns["log_offset"] = pa.array(np.array(offsets[start : start + count]), pa.int64())
        yield pa.table(columns)
        start += count


def _count_alike(rows: list[dict[str, Any]]) -> tuple[int, dict[str, type]]:
    """How many rows from the first on agree on the type of every name, and those types."""
    types: dict[str, type] = {}
    for count, row in enumerate(rows):
        own = {name: type(value) for name, value in row.items()}
        if any(types.get(name, kind) is not kind for name, kind in own.items()):
            return count, types
        types |= own
    return len(rows), types


def _unavailable(servers: str, error: KafkaException) -> StoreUnavailable:
    return StoreUnavailable(
        explain("Kafka does not answer", which=servers, expected=f"a broker within {TIMEOUT_S:.0f} s", got=str(error),
                next_step="start the broker, or correct the address, and try again")
    )  # fmt: skip


def _await_leaders(client: AdminClient, servers: str, topic: str) -> None:
    """Return once every partition of a topic has a leader: a broker accepts a topic before it can name its partitions."""
    for _ in range(ATTEMPTS):
        try:
            found = client.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise _unavailable(servers, error) from error
        if found.partitions and all(partition.leader >= 0 for partition in found.partitions.values()):
            return
        time.sleep(PAUSE_S)
    raise _unavailable(servers, KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
