"""Reads a mapping from YAML: every key is known, every name is declared, or one line says which is not."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from features.declarations import Catalog
from features.errors import DeclarationError, MappingError, explain
from features.mapping import FILE_AND_ROW, EventBlock, Mapping, ProfileBlock, TimeValue, Value
from features.mapping_values import (
    AGGREGATES,
    check,
    check_keys,
    check_strings,
    parse_conditions,
    parse_joins,
    parse_time,
    parse_time_or_delay,
    parse_value,
    refused,
)  # fmt: skip

SHIPPED: Final = Path(__file__).parent / "mappings"

DEFAULTS: Final = ("entity_id", "event_id", "event_time", "ingest_time", "region", "group_by", "join")
EVENT_KEYS: Final = (*DEFAULTS, "type", "entity", "where", "attributes", "file")
PROFILE_KEYS: Final = ("name", "entity_id", "valid_from", "created_time", "where", "fields", "collapse", "file", "join")


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
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise refused(path.name, "valid YAML in UTF-8, every key once", str(error)) from error
    check_keys(document, ("catalog", "time_zone", "where", "events", "profiles", *DEFAULTS), path.name)
    check(isinstance(document.get("catalog"), str), path.name, "catalog: the name of a catalog", repr(document.get("catalog")))
    return dict(document)


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
            raise refused(f"{name}: time_zone", "a name of the time zone database (Europe/London, UTC)", repr(zone)) from error
    blocks, profiles = document.get("events") or [], document.get("profiles") or []
    check(isinstance(blocks, list) and isinstance(profiles, list) and bool(blocks or profiles), name,
           "a list of events or of profiles", "neither")  # fmt: skip
    defaults: dict[str, Any] = {key: document[key] for key in DEFAULTS if key in document}
    return Mapping(
        name=name,
        catalog=catalog.name,
        time_zone=zone,
        where=parse_conditions(document.get("where"), f"{name}: where"),
        events=tuple(_event_block(block, defaults, catalog, f"{name}: events[{row}]") for row, block in enumerate(blocks)),
        profiles=tuple(_profile_block(block, catalog, f"{name}: profiles[{row}]") for row, block in enumerate(profiles)),
    )


def _event_block(block: object, defaults: dict[str, Any], catalog: Catalog, which: str) -> EventBlock:
    entries = {**defaults, **check_keys(block, EVENT_KEYS, which)}
    for key in ("type", "entity_id", "event_id", "event_time", "ingest_time"):
        check(key in entries, which, f"the key {key!r}", "no such key")
    kind = entries["type"]
    event_type = Value(constant=kind) if isinstance(kind, str) else parse_value(kind, f"{which}.type")
    entity = _entity(event_type, entries.get("entity"), catalog, which)
    only = {"constant": catalog.regions[0]} if len(catalog.regions) == 1 else None
    region = parse_value(entries.get("region", only), f"{which}.region")
    if region.constant is not None:
        check(
            region.constant in catalog.regions, f"{which}.region", f"one of {', '.join(catalog.regions)}", repr(region.constant)
        )
    row_id = entries["event_id"] == FILE_AND_ROW
    parsed = EventBlock(
        entity=entity,
        event_type=event_type,
        entity_id=parse_value(entries["entity_id"], f"{which}.entity_id"),
        event_id=None if row_id else parse_value(entries["event_id"], f"{which}.event_id"),
        event_time=parse_time(entries["event_time"], f"{which}.event_time"),
        ingest_time=parse_time_or_delay(entries["ingest_time"], f"{which}.ingest_time"),
        region=region,
        where=parse_conditions(entries.get("where"), f"{which}.where"),
        group_by=tuple(check_strings(entries.get("group_by", []), f"{which}.group_by")),
        attributes=_attributes(entries.get("attributes", {}), event_type, entity, catalog, which),
        file=_file(entries, which),
        join=parse_joins(entries.get("join"), f"{which}.join"),
    )
    return _grouped(parsed, which)


def _entity(event_type: Value, stated: object, catalog: Catalog, which: str) -> str:
    if event_type.constant is not None:
        names = [kind.name for kind in catalog.event_types]
        check(event_type.constant in names, f"{which}.type", f"an event type of catalog {catalog.name!r}: {', '.join(names)}",
               repr(event_type.constant), "declare the event type in the catalog or correct the mapping")  # fmt: skip
        entity = catalog.event_type(str(event_type.constant)).entity
        check(stated in (None, entity), f"{which}.entity", entity, repr(stated))
        return entity
    named = stated if stated is not None else (catalog.entities[0] if len(catalog.entities) == 1 else None)
    check(named in catalog.entities, f"{which}.entity", f"one of {', '.join(catalog.entities)}", repr(stated))
    return str(named)


def _attributes(entries: object, event_type: Value, entity: str, catalog: Catalog, which: str) -> tuple[tuple[str, Value], ...]:
    constant = event_type.constant
    every = tuple(attribute.name for attribute in catalog.attributes_of(entity))
    carried = every if constant is None else catalog.event_type(str(constant)).attributes
    attributes = check_keys(entries, carried, f"{which}.attributes")
    parsed = []
    for name, spec in attributes.items():
        value = parse_value(spec, f"{which}.attributes.{name}")
        _check_dtype(value, catalog.attribute(name).dtype, f"{which}.attributes.{name}")
        parsed.append((name, value))
    return tuple(parsed)


def _check_dtype(value: Value, dtype: str, which: str) -> None:
    if dtype == "string":
        numeric = value.scale != 1 or value.round or len(value.columns) > 1 or value.aggregate in ("sum", "count")
        check(not numeric and not isinstance(value.constant, int), which, "a text", "a number")
    else:
        textual = value.values or value.prefix or value.default or value.of_row or isinstance(value.constant, str)
        check(not textual, which, "a whole number", "a text")


def _grouped(block: EventBlock, which: str) -> EventBlock:
    """With group_by: columns of the key stand for themselves (``first``), all others must have an aggregate."""
    keys = ("event_type", "entity_id", "event_id", "event_time", "ingest_time", "region")
    named = [
        *((key, getattr(block, key)) for key in keys),
        *((f"attributes.{name}", value) for name, value in block.attributes),
    ]
    settled: dict[str, Any] = {}
    for name, value in named:
        settled[name] = value
        if not isinstance(value, Value | TimeValue):
            continue
        columns = value.columns if isinstance(value, Value) else (value.column,) if value.column else ()
        if not block.group_by:
            check(not value.aggregate, f"{which}.{name}", "no aggregate without group_by", value.aggregate)
        elif columns and not value.aggregate:
            stray = [column for column in columns if column not in block.group_by]
            check(
                not stray, f"{which}.{name}", f"one of {', '.join(AGGREGATES)} for a column outside group_by", ", ".join(stray)
            )
            settled[name] = replace(value, aggregate="first")
    attributes = tuple((name, settled[f"attributes.{name}"]) for name, _ in block.attributes)
    return replace(block, attributes=attributes, **{key: settled[key] for key in keys})


def _profile_block(block: object, catalog: Catalog, which: str) -> ProfileBlock:
    entries = check_keys(block, PROFILE_KEYS, which)
    for key in ("name", "entity_id", "valid_from", "created_time", "fields"):
        check(key in entries, which, f"the key {key!r}", "no such key")
    try:
        profile = catalog.profile(entries["name"])
    except DeclarationError as error:
        raise MappingError(f"{which}: {error}") from error
    dtypes = {field.name: field.dtype for field in profile.fields}
    fields = []
    for name, spec in check_keys(entries["fields"], dtypes, f"{which}.fields").items():
        value = parse_value(spec, f"{which}.fields.{name}")
        _check_dtype(value, dtypes[name], f"{which}.fields.{name}")
        check(not value.aggregate, f"{which}.fields.{name}", "a column or a constant", value.aggregate)
        fields.append((name, value))
    collapse = entries.get("collapse", False)
    check(isinstance(collapse, bool), f"{which}.collapse", "true or false", repr(collapse))
    return ProfileBlock(
        profile=profile.name,
        entity_id=parse_value(entries["entity_id"], f"{which}.entity_id"),
        valid_from=parse_time(entries["valid_from"], f"{which}.valid_from"),
        created_time=parse_time_or_delay(entries["created_time"], f"{which}.created_time"),
        where=parse_conditions(entries.get("where"), f"{which}.where"),
        fields=tuple(fields),
        collapse=collapse,
        file=_file(entries, which),
        join=parse_joins(entries.get("join"), f"{which}.join"),
    )


def _file(entries: dict[str, Any], which: str) -> str:
    name = entries.get("file", "")
    check(isinstance(name, str), f"{which}.file", "the name of a file", repr(name))
    return str(name)


class _Loader(yaml.SafeLoader):
    """Two of YAML 1.2's rules that PyYAML does not hold: a key stands once, and only true and false are booleans.

    Else the key ``on`` would be the boolean true.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML looks it up on the class
        letter: [entry for entry in resolvers if letter in "tTfF" or entry[0] != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key stands twice among {', '.join(keys)}", node.start_mark)
        return super().construct_mapping(node, deep)
