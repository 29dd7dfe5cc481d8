"""Reads a mapping from YAML: every key is known, every name is declared, or one line says which is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from features.declarations import Catalog
from features.errors import DeclarationError, MappingError, explain
from features.mapping import FILE_AND_ROW, HALF_AWAY, Aggregate, Condition, Delay, Epoch, EventBlock, Mapping, ProfileBlock, Scalar, TimeValue, Value

SHIPPED: Final = Path(__file__).parent / "mappings"

DEFAULTS: Final = ("entity_id", "event_id", "event_time", "ingest_time", "region", "group_by")
EVENT_KEYS: Final = (*DEFAULTS, "type", "entity", "where", "attributes")
PROFILE_KEYS: Final = ("name", "entity_id", "valid_from", "created_time", "where", "fields", "collapse")
VALUE_KEYS: Final = ("column", "constant", "product", "sum", "min", "max", "first", "scale", "round", "values", "prefix", "optional")
AGGREGATES: Final = ("sum", "min", "max", "first")
OPERATORS: Final = ("equals", "not_equals", "in", "starts_with", "greater_than", "at_least", "less_than", "at_most", "is_null")


def mapping_path(name_or_path: str) -> Path:
    """The file of a shipped mapping's name (``online_retail_ii``) or of a path.

    Raises:
        MappingError: there is neither.
    """
    shipped = SHIPPED / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise MappingError(explain("mapping is not there", which=repr(name_or_path), expected=f"a YAML file or one of {names}",
                                   got="neither", next_step="correct the path or the name"))  # fmt: skip
    return path


def read_document(path: Path) -> dict[str, Any]:
    """The mapping's YAML as it stands, before any check against a catalog; its ``catalog`` key names that catalog."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - derives from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refuse(path.name, "valid YAML in UTF-8, every key once", str(error)) from error
    _check_keys(document, ("catalog", "time_zone", "where", "events", "profiles", *DEFAULTS), path.name)
    _check(isinstance(document.get("catalog"), str), path.name, "catalog: the name of a catalog", repr(document.get("catalog")))
    return cast("dict[str, Any]", document)


def parse_mapping(document: dict[str, Any], catalog: Catalog, name: str) -> Mapping:
    """Check a mapping's document against its catalog.

    Raises:
        MappingError: an unknown key, a missing one, an undeclared event type, attribute, profile or region, an unknown
            time zone, or a grouped block that leaves a column without aggregate.
    """
    zone = document.get("time_zone", "")
    if zone:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError) as error:
            raise _refuse(f"{name}: time_zone", "a name of the time zone database (Europe/London, UTC)", repr(zone)) from error
    blocks, profiles = document.get("events") or [], document.get("profiles") or []
    _check(isinstance(blocks, list) and isinstance(profiles, list) and bool(blocks or profiles), name,
           "a list of events or of profiles", "neither")  # fmt: skip
    defaults = {key: document[key] for key in DEFAULTS if key in document}
    return Mapping(
        name=name,
        catalog=catalog.name,
        time_zone=zone,
        where=_conditions(document.get("where"), f"{name}: where"),
        events=tuple(_event_block(block, defaults, catalog, f"{name}: events[{row}]") for row, block in enumerate(blocks)),
        profiles=tuple(_profile_block(block, catalog, f"{name}: profiles[{row}]") for row, block in enumerate(profiles)),
    )


def _event_block(block: object, defaults: dict[str, Any], catalog: Catalog, which: str) -> EventBlock:
    entries = {**defaults, **_check_keys(block, EVENT_KEYS, which)}
    for key in ("type", "entity_id", "event_id", "event_time", "ingest_time"):
        _check(key in entries, which, f"the key {key!r}", "no such key")
    kind = entries["type"]
    event_type = Value(constant=kind) if isinstance(kind, str) else _value(kind, f"{which}.type")
    entity = _entity(event_type, entries.get("entity"), catalog, which)
    region = _value(entries.get("region", {"constant": catalog.regions[0]} if len(catalog.regions) == 1 else None), f"{which}.region")
    if region.constant is not None:
        _check(region.constant in catalog.regions, f"{which}.region", f"one of {', '.join(catalog.regions)}", repr(region.constant))
    row_id = entries["event_id"] == FILE_AND_ROW
    parsed = EventBlock(
        entity=entity,
        event_type=event_type,
        entity_id=_value(entries["entity_id"], f"{which}.entity_id"),
        event_id=None if row_id else _value(entries["event_id"], f"{which}.event_id"),
        event_time=_time(entries["event_time"], f"{which}.event_time"),
        ingest_time=_time_or_delay(entries["ingest_time"], f"{which}.ingest_time"),
        region=region,
        where=_conditions(entries.get("where"), f"{which}.where"),
        group_by=tuple(_strings(entries.get("group_by", []), f"{which}.group_by")),
        attributes=_attributes(entries.get("attributes", {}), event_type, entity, catalog, which),
    )
    return _grouped(parsed, which)


def _entity(event_type: Value, stated: object, catalog: Catalog, which: str) -> str:
    if event_type.constant is not None:
        names = [kind.name for kind in catalog.event_types]
        _check(event_type.constant in names, f"{which}.type", f"an event type of catalog {catalog.name!r}: {', '.join(names)}",
               repr(event_type.constant), "declare the event type in the catalog or correct the mapping")  # fmt: skip
        entity = catalog.event_type(str(event_type.constant)).entity
        _check(stated in (None, entity), f"{which}.entity", entity, repr(stated))
        return entity
    entity = stated if stated is not None else (catalog.entities[0] if len(catalog.entities) == 1 else None)
    _check(entity in catalog.entities, f"{which}.entity", f"one of {', '.join(catalog.entities)}", repr(stated))
    return cast("str", entity)


def _attributes(entries: object, event_type: Value, entity: str, catalog: Catalog, which: str) -> tuple[tuple[str, Value], ...]:
    constant = event_type.constant
    carried = catalog.event_type(str(constant)).attributes if constant is not None else [a.name for a in catalog.attributes_of(entity)]
    attributes = _check_keys(entries, carried, f"{which}.attributes")
    parsed = []
    for name, spec in attributes.items():
        value = _value(spec, f"{which}.attributes.{name}")
        _check_dtype(value, catalog.attribute(name).dtype, f"{which}.attributes.{name}")
        parsed.append((name, value))
    return tuple(parsed)


def _check_dtype(value: Value, dtype: str, which: str) -> None:
    if dtype == "string":
        numeric = value.scale != 1 or value.round or len(value.columns) > 1 or value.aggregate in ("sum", "count")
        _check(not numeric and not isinstance(value.constant, int), which, "a text", "a number")
    else:
        _check(not value.values and not value.prefix and not isinstance(value.constant, str), which, "a whole number", "a text")


def _grouped(block: EventBlock, which: str) -> EventBlock:
    """With group_by: columns of the key stand for themselves (``first``), all others must have an aggregate."""
    named = [("type", block.event_type), ("entity_id", block.entity_id), ("event_id", block.event_id), ("event_time", block.event_time),
             ("ingest_time", block.ingest_time), ("region", block.region),
             *((f"attributes.{name}", value) for name, value in block.attributes)]  # fmt: skip
    settled: dict[str, Any] = {}
    for name, value in named:
        settled[name] = value
        if not isinstance(value, Value | TimeValue):
            continue
        columns = value.columns if isinstance(value, Value) else (value.column,)
        if not block.group_by:
            _check(not value.aggregate, f"{which}.{name}", "no aggregate without group_by", value.aggregate)
        elif columns and not value.aggregate:
            stray = [column for column in columns if column not in block.group_by]
            _check(not stray, f"{which}.{name}", f"one of {', '.join(AGGREGATES)} for a column outside group_by", ", ".join(stray))
            settled[name] = replace(value, aggregate="first")
    attributes = tuple((name, settled[f"attributes.{name}"]) for name, _ in block.attributes)
    return replace(block, event_type=settled["type"], entity_id=settled["entity_id"], event_id=settled["event_id"],
                   event_time=settled["event_time"], ingest_time=settled["ingest_time"], region=settled["region"],
                   attributes=attributes)  # fmt: skip


def _profile_block(block: object, catalog: Catalog, which: str) -> ProfileBlock:
    entries = _check_keys(block, PROFILE_KEYS, which)
    for key in ("name", "entity_id", "valid_from", "created_time", "fields"):
        _check(key in entries, which, f"the key {key!r}", "no such key")
    try:
        profile = catalog.profile(entries["name"])
    except DeclarationError as error:
        raise MappingError(f"{which}: {error}") from error
    dtypes = {field.name: field.dtype for field in profile.fields}
    fields = []
    for name, spec in _check_keys(entries["fields"], dtypes, f"{which}.fields").items():
        value = _value(spec, f"{which}.fields.{name}")
        _check_dtype(value, dtypes[name], f"{which}.fields.{name}")
        _check(not value.aggregate, f"{which}.fields.{name}", "a column or a constant", value.aggregate)
        fields.append((name, value))
    collapse = entries.get("collapse", False)
    _check(isinstance(collapse, bool), f"{which}.collapse", "true or false", repr(collapse))
    return ProfileBlock(
        profile=profile.name,
        entity_id=_value(entries["entity_id"], f"{which}.entity_id"),
        valid_from=_time(entries["valid_from"], f"{which}.valid_from"),
        created_time=_time_or_delay(entries["created_time"], f"{which}.created_time"),
        where=_conditions(entries.get("where"), f"{which}.where"),
        fields=tuple(fields),
        collapse=collapse,
    )


def _value(spec: object, which: str) -> Value:
    if isinstance(spec, str):
        return Value(columns=(spec,)) if spec != "count" else Value(aggregate="count")
    entries = _check_keys(spec, VALUE_KEYS, which)
    aggregate = [key for key in AGGREGATES if key in entries]
    source = [key for key in ("column", "constant", "product") if key in entries]
    _check(len(aggregate) + len(source) == 1, which, "one of column, constant, product, sum, min, max, first", ", ".join(aggregate + source) or "none")
    if aggregate:
        inner = _value(entries[aggregate[0]], f"{which}.{aggregate[0]}")
        _check(not inner.aggregate and len(entries) == 1, which, f"{aggregate[0]} of a column or product, and nothing beside it", repr(spec))
        return replace(inner, aggregate=cast("Aggregate", aggregate[0]))
    columns = [entries["column"]] if "column" in entries else entries.get("product", [])
    constant, renamed = entries.get("constant"), entries.get("values", {})
    scale, rounding, optional = entries.get("scale", 1), entries.get("round", ""), entries.get("optional", False)
    if "constant" in entries:
        _check(isinstance(constant, str | int) and not isinstance(constant, bool), f"{which}.constant", "a text or a whole number", repr(constant))
    _check(isinstance(scale, int) and scale > 0, f"{which}.scale", "a whole number above 0", repr(scale))
    _check(rounding in ("", HALF_AWAY), f"{which}.round", HALF_AWAY, repr(rounding))
    _check(isinstance(renamed, dict), f"{which}.values", "texts and their new texts", repr(renamed))
    _check(isinstance(optional, bool), f"{which}.optional", "true or false", repr(optional))
    return Value(columns=tuple(_strings(columns, which)), constant=constant, scale=scale, round=rounding,
                 values=tuple((str(old), str(new)) for old, new in renamed.items()), prefix=str(entries.get("prefix", "")),
                 optional=optional)  # fmt: skip


def _time(spec: object, which: str) -> TimeValue:
    if isinstance(spec, str):
        return TimeValue(spec)
    entries = _check_keys(spec, ("column", "epoch", "format", "min", "max", "first"), which)
    aggregate = [key for key in ("min", "max", "first") if key in entries]
    _check(len(aggregate) + ("column" in entries) == 1, which, "one of column, min, max, first", ", ".join(entries))
    if aggregate:
        return replace(_time(entries[aggregate[0]], which), aggregate=cast("Aggregate", aggregate[0]))
    _check(entries.get("epoch", "") in ("", "s", "ms", "us"), f"{which}.epoch", "s, ms or us", repr(entries.get("epoch")))
    column, form = _strings([entries["column"], entries.get("format", "")], which)
    return TimeValue(column, cast("Epoch", entries.get("epoch", "")), form)


def _time_or_delay(spec: object, which: str) -> TimeValue | Delay:
    if isinstance(spec, dict) and "delay_s" in spec:
        delay_s = _check_keys(spec, ("delay_s",), which)["delay_s"]
        _check(isinstance(delay_s, int) and delay_s >= 0, f"{which}.delay_s", "seconds, a whole number from 0", repr(delay_s))
        return Delay(delay_s)
    return _time(spec, which)


def _conditions(spec: object, which: str) -> tuple[Condition, ...]:
    entries = [] if spec is None else spec if isinstance(spec, list) else [spec]
    return tuple(_condition(entry, f"{which}[{row}]") for row, entry in enumerate(entries))


def _condition(spec: object, which: str) -> Condition:
    entries = _check_keys(spec, ("column", "not", "all", "any", *OPERATORS), which)
    for operator in ("not", "all", "any"):
        if operator in entries:
            _check(len(entries) == 1, which, f"{operator!r} alone", ", ".join(entries))
            return Condition(operator, parts=_conditions(entries[operator], f"{which}.{operator}"))
    operators = [key for key in entries if key != "column"]
    _check(len(operators) == 1 and isinstance(entries.get("column"), str), which, f"a column and one of {', '.join(OPERATORS)}", repr(spec))
    operator, operand = operators[0], entries[operators[0]]
    operands = operand if operator == "in" and isinstance(operand, list) else [operand]
    _check(bool(operands) and all(isinstance(entry, str | int | float) for entry in operands), which, "texts, numbers or true/false", repr(operand))
    if operator == "starts_with":
        _check(isinstance(operand, str), which, "a text", repr(operand))
    if operator in ("greater_than", "at_least", "less_than", "at_most"):
        _check(isinstance(operand, int | float) and not isinstance(operand, bool), which, "a number", repr(operand))
    if operator == "is_null":
        _check(isinstance(operand, bool), which, "true or false", repr(operand))
    return Condition(operator, entries["column"], tuple(cast("list[Scalar]", operands)))


def _strings(entries: object, which: str) -> list[str]:
    _check(isinstance(entries, list) and all(isinstance(entry, str) for entry in entries), which, "column names", repr(entries))
    return cast("list[str]", entries)


def _check_keys(entries: object, known: Iterable[str], which: str) -> dict[str, Any]:
    names = list(known)
    _check(isinstance(entries, dict), which, f"keys among {', '.join(names)}", repr(entries))
    keys = cast("dict[str, Any]", entries)
    unknown = [str(key) for key in keys if key not in names]
    _check(not unknown, which, f"keys among {', '.join(names) or 'none'}", ", ".join(unknown))
    return keys


def _check(holds: bool, which: str, expected: str, got: str, next_step: str = "correct the mapping") -> None:
    if not holds:
        raise MappingError(explain("mapping does not fit", which=which, expected=expected, got=got, next_step=next_step))


def _refuse(which: str, expected: str, got: str) -> MappingError:
    return MappingError(explain("mapping does not fit", which=which, expected=expected, got=got, next_step="correct the mapping"))


class _UniqueKeys(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not hold: a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Collection[Any]:
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key stands twice among {', '.join(keys)}", node.start_mark)
        return super().construct_mapping(node, deep)
