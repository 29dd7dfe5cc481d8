"""One file and its mapping make events, profile rows and bad rows; nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from features.declarations import Catalog
from features.errors import MappingError, explain
from features.expressions import MAX_WHOLE, NO_REASON, Reading, match_rows, naive_rows, read_text, read_time, read_whole
from features.layout import MAX_FUTURE_S, US_PER_S
from features.mapping import Condition, Delay, EventBlock, Mapping, ProfileBlock, TimeValue, Value
from features.side_files import UNJOINED, JoinedFile, join_sides
from features.source_files import ROW, SourceFile

REASON = "=reason"
KEY = "=key"


@dataclass(frozen=True)
class Extracted:
    """What one file gave.

    ``events`` holds a frame for each entity (columns of the event schema without those that the log stamps, and the row
    number), ``profiles`` one for each profile, ``bad`` (row, entity, reason, content), ``filtered`` the number of rows
    that no block asked for and ``sides`` the SHA-256 of every side file that was joined.
    """

    events: dict[str, pl.DataFrame]
    profiles: dict[str, pl.DataFrame]
    bad: pl.DataFrame
    filtered: int
    sides: tuple[str, ...] = ()


def extract(source: SourceFile, mapping: Mapping, catalog: Catalog) -> Extracted:
    """Turn a file's rows into events and profile rows.

    Raises:
        MappingError: the mapping names a column that the file lacks or whose type cannot serve, or the file's times
            have no zone and the mapping states none.
    """
    blocks = [block for block in mapping.blocks if block.file in ("", source.path.name)]
    if not blocks:
        files = ", ".join(dict.fromkeys(block.file for block in mapping.blocks))
        raise MappingError(explain("mapping does not read this file", which=str(source.path), expected=f"one of {files}",
                                   got=source.path.name, next_step="pass a file that the mapping names"))  # fmt: skip
    joined = {joins: join_sides(source, joins) for joins in dict.fromkeys(block.join for block in blocks)}
    asked = pl.Series([False]).new_from_index(0, source.frame.height)
    events: dict[str, list[pl.DataFrame]] = {}
    profiles: dict[str, list[pl.DataFrame]] = {}
    bad: list[pl.DataFrame] = []
    for block in blocks:
        file = joined[block.join]
        _check_file(file, block, mapping)
        rows, matched = _matching(file, mapping, block.where)
        asked |= matched
        if isinstance(block, EventBlock):
            entity = block.entity
            good, refused = _events_of(rows, file, block, mapping, catalog)
            events.setdefault(entity, []).append(good)
        else:
            entity = catalog.profile(block.profile).entity
            good, refused = _profile_rows_of(rows, file, block, mapping, catalog)
            profiles.setdefault(block.profile, []).append(good)
        bad.append(refused.with_columns(entity=pl.lit(entity)))
    return Extracted(
        events={entity: pl.concat(frames).sort(ROW, maintain_order=True) for entity, frames in events.items()},
        profiles={name: pl.concat(frames) for name, frames in profiles.items()},
        bad=_with_content(pl.concat(bad), source),
        filtered=source.frame.height - int(asked.sum()),
        sides=tuple(dict.fromkeys(sha256 for file in joined.values() for sha256 in file.sides)),
    )


def _check_file(source: JoinedFile, block: EventBlock | ProfileBlock, mapping: Mapping) -> None:
    schema, present = source.frame.schema, source.columns
    conditions = [column for condition in mapping.where for column in condition.columns()]
    for column in (*conditions, *block.columns()):
        if column not in present:
            raise MappingError(
                explain("column is not in the file", which=f"{column!r} of mapping {mapping.name}",
                        expected=f"one of {', '.join(present)}", got=f"no such column in {source.path}",
                        next_step="correct the mapping or pass the file it is for")
            )  # fmt: skip
    if mapping.time_zone:
        return
    for time in dict.fromkeys(time for time in block.times if isinstance(time, TimeValue)):
        naive = naive_rows(time, schema)
        if source.frame.select(naive.any()).item():
            example = source.frame.filter(naive)[time.column][0]
            raise MappingError(
                explain("time zone is missing", which=f"column {time.column!r} of {source.path}",
                        expected="time_zone in the mapping", got=f"times without a zone, {example}",
                        next_step=f"add time_zone (UTC, Europe/London) to {mapping.name}")
            )  # fmt: skip


def _matching(source: JoinedFile, mapping: Mapping, where: tuple[Condition, ...]) -> tuple[pl.DataFrame, pl.Series]:
    """(rows to read with ``REASON`` for those that cannot be joined or told, mask of them all).

    A row without side row is asked for if it meets the conditions on its own columns.
    """
    frame, conditions = source.frame, (*mapping.where, *where)
    own = tuple(each for each in conditions if not source.added & set(each.columns()))
    added = tuple(each for each in conditions if source.added & set(each.columns()))
    unjoined = pl.col(UNJOINED).is_not_null()
    match = match_rows(own, frame.schema) & (unjoined | match_rows(added, frame.schema))
    verdict = frame.select(pl.col(UNJOINED), match.alias("match").cast(pl.Boolean))
    matched = verdict["match"].fill_null(True)
    unclear = pl.when(verdict["match"].is_null()).then(pl.lit("a number that 'where' asks for cannot be read"))
    return frame.with_columns(pl.coalesce(unclear, pl.col(UNJOINED)).alias(REASON)).filter(matched), matched


def _events_of(
    rows: pl.DataFrame, source: JoinedFile, block: EventBlock, mapping: Mapping, catalog: Catalog
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(events, refused rows with their reasons) of one block."""
    readings = _read_block(source, block, mapping, catalog)
    reason = pl.coalesce(pl.col(REASON), *(reading.reason for reading in readings.values()))
    columns = [reading.value.alias(name) for name, reading in readings.items()]
    keys = [pl.col(name).alias(f"{KEY}{position}") for position, name in enumerate(block.group_by)]
    read = rows.select(pl.col(ROW), reason.alias(REASON), *columns, *keys)
    refused = read.filter(pl.col(REASON).is_not_null()).select(ROW, REASON)
    good = read.filter(pl.col(REASON).is_null()).drop(REASON)
    if block.group_by:
        good, condemned = _group(good, read, block)
        refused = pl.concat([refused, condemned])
    if isinstance(block.ingest_time, Delay):
        good = good.with_columns(ingest_time=pl.col("event_time") + pl.duration(seconds=block.ingest_time.delay_s))
    if block.event_id is None:
        prefix = pl.lit(f"{source.sha256[:24]}-")
        good = good.with_columns(event_id=prefix + pl.col(ROW).cast(pl.String) + "-" + pl.col("event_type"))
    ahead = pl.col("event_time").dt.epoch("us") - pl.col("ingest_time").dt.epoch("us") > MAX_FUTURE_S * US_PER_S
    future = good.filter(ahead).select(ROW, pl.lit(f"event_time is more than {MAX_FUTURE_S} s after ingest_time").alias(REASON))
    names = [attribute.name for attribute in catalog.attributes_of(block.entity)]
    order = [ROW, "event_id", "entity_id", "event_type", "event_time", "ingest_time", "region", *names]
    return good.filter(~ahead).select(order), pl.concat([refused, future])


def _read_block(source: JoinedFile, block: EventBlock, mapping: Mapping, catalog: Catalog) -> dict[str, Reading]:
    """Readings of every column of an event, in the order in which reasons are looked for."""
    schema, zone = source.frame.schema, mapping.time_zone
    kinds = [kind for kind in catalog.event_types if kind.entity == block.entity]
    kind = read_text(block.event_type, schema, "event type")
    readings = {"event_type": _among(kind, [each.name for each in kinds], "event type")}
    readings["entity_id"] = read_text(block.entity_id, schema, "entity_id")
    if block.event_id is not None:
        readings["event_id"] = read_text(block.event_id, schema, "event_id")
    readings["event_time"] = read_time(block.event_time, schema, zone, "event_time")
    if isinstance(block.ingest_time, TimeValue):
        readings["ingest_time"] = read_time(block.ingest_time, schema, zone, "ingest_time")
    readings["region"] = _among(read_text(block.region, schema, "region"), list(catalog.regions), "region")
    mapped = dict(block.attributes)
    for attribute in catalog.attributes_of(block.entity):
        dtype = pl.Int64 if attribute.dtype == "int64" else pl.String
        if attribute.name not in mapped:
            readings[attribute.name] = Reading(pl.lit(None, dtype), NO_REASON)
            continue
        read = read_whole if attribute.dtype == "int64" else read_text
        reading = read(mapped[attribute.name], schema, attribute.name)
        carriers = [each.name for each in kinds if attribute.name in each.attributes]
        if block.event_type.constant is None:
            # One column serves many event types: it is read only for those that carry the attribute.
            carries = kind.value.is_in(carriers)
            reading = Reading(pl.when(carries).then(reading.value), pl.when(carries).then(reading.reason))
        readings[attribute.name] = reading
    return readings


def _among(reading: Reading, names: list[str], what: str) -> Reading:
    undeclared = pl.when(~reading.value.is_in(names)).then(pl.format(f"{what} {{}} is not declared", reading.value))
    return Reading(reading.value, pl.coalesce(reading.reason, undeclared))


def _group(good: pl.DataFrame, read: pl.DataFrame, block: EventBlock) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(one row a group, rows condemned): a bad row takes its whole event with it, for half an event would be a lie."""
    keys = [name for name in read.columns if name.startswith(KEY)]
    spoilt = read.filter(pl.col(REASON).is_not_null()).select(keys).unique()
    condemned = good.join(spoilt, on=keys, how="semi", nulls_equal=True)
    if spoilt.height:
        good = good.join(spoilt, on=keys, how="anti", nulls_equal=True)
    aggregates = {name: _aggregate(name, value) for name, value in _named_values(block)}
    rest = [name for name in read.columns if name not in (ROW, REASON, *keys, *aggregates)]
    firsts = [pl.col(name).first() for name in rest]
    grouped = good.group_by(keys).agg(pl.col(ROW).min(), *aggregates.values(), *firsts).sort(ROW)
    wholes = [name for name, _ in block.attributes if grouped.schema[name] == pl.Int64]
    too_large = [pl.when(pl.col(name).abs() > MAX_WHOLE).then(pl.lit(f"{name} is beyond 2**53")) for name in wholes]
    grouped = grouped.with_columns(pl.coalesce(NO_REASON, *too_large).alias(REASON))
    refused = [condemned.select(ROW, pl.lit("another row of the same event is bad").alias(REASON)),
               grouped.filter(pl.col(REASON).is_not_null()).select(ROW, REASON)]  # fmt: skip
    return grouped.filter(pl.col(REASON).is_null()).drop(REASON), pl.concat(refused)


def _named_values(block: EventBlock) -> Iterable[tuple[str, Value | TimeValue]]:
    names = ("event_type", "entity_id", "event_id", "event_time", "ingest_time", "region")
    named = [*((name, getattr(block, name)) for name in names), *block.attributes]
    return ((name, value) for name, value in named if isinstance(value, Value | TimeValue))


def _aggregate(name: str, value: Value | TimeValue) -> pl.Expr:
    column = pl.col(name)
    if value.aggregate in ("sum", "count"):
        return column.sum()  # every row of a count stands for 1
    if value.aggregate == "min":
        return column.min()
    return column.max() if value.aggregate == "max" else column.first()


def _profile_rows_of(
    rows: pl.DataFrame, source: JoinedFile, block: ProfileBlock, mapping: Mapping, catalog: Catalog
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(profile rows, refused rows with their reasons) of one block."""
    schema, zone, mapped = source.frame.schema, mapping.time_zone, dict(block.fields)
    readings = {"entity_id": read_text(block.entity_id, schema, "entity_id")}
    readings["valid_from"] = read_time(block.valid_from, schema, zone, "valid_from")
    if isinstance(block.created_time, TimeValue):
        readings["created_time"] = read_time(block.created_time, schema, zone, "created_time")
    for field in catalog.profile(block.profile).fields:
        read, dtype = (read_whole, pl.Int64) if field.dtype == "int64" else (read_text, pl.String)
        absent = Reading(pl.lit(None, dtype), NO_REASON)
        readings[field.name] = read(mapped[field.name], schema, field.name) if field.name in mapped else absent
    reason = pl.coalesce(pl.col(REASON), *(reading.reason for reading in readings.values()))
    columns = [reading.value.alias(name) for name, reading in readings.items()]
    read_rows = rows.select(pl.col(ROW), reason.alias(REASON), *columns)
    good = read_rows.filter(pl.col(REASON).is_null())
    if isinstance(block.created_time, Delay):
        good = good.with_columns(created_time=pl.col("valid_from") + pl.duration(seconds=block.created_time.delay_s))
    fields = [field.name for field in catalog.profile(block.profile).fields]
    place = ["entity_id", "valid_from", "created_time"]
    good = good.select(ROW, *place, *fields).sort(*place, ROW).unique(place, keep="last", maintain_order=True)
    if block.collapse:
        good = _collapse(good, fields)
    return good.drop(ROW), read_rows.filter(pl.col(REASON).is_not_null()).select(ROW, REASON)


def _collapse(rows: pl.DataFrame, fields: list[str]) -> pl.DataFrame:
    """Drop a row that repeats its predecessor's values and was not known before it; rows are by entity and valid_from."""
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in fields]
    known_later = pl.col("created_time") >= pl.col("created_time").shift(1)
    repeats = pl.all_horizontal(pl.col("entity_id") == pl.col("entity_id").shift(1), known_later, *same)
    return rows.filter(~repeats.fill_null(False))


def _with_content(bad: pl.DataFrame, source: SourceFile) -> pl.DataFrame:
    """Add each bad row as JSON, in the order of the file."""
    bad = bad.sort(ROW, maintain_order=True)
    content = source.frame[bad[ROW]].drop(ROW).select(pl.struct(pl.all()).struct.json_encode().alias("content"))
    return bad.rename({ROW: "row", REASON: "reason"}).with_columns(content["content"])
