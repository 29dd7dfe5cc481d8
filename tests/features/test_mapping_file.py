"""Mappings: what is refused, with the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from features.catalogs import load_catalog
from features.errors import MappingError
from features.mapping_file import SHIPPED, mapping_path, parse_mapping, read_document

GOOD = """
catalog: retail
time_zone: UTC
event_id: invoice
entity_id: customer
event_time: at
ingest_time: {delay_s: 60}
events:
  - type: order
    where: {column: quantity, greater_than: 0}
    attributes: {items: quantity}
"""


def parse(text: str) -> object:
    return parse_mapping(yaml.safe_load(text), load_catalog("retail"), "m.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_every_shipped_mapping_fits_its_catalog(name: str) -> None:
    document = read_document(mapping_path(name))
    assert parse_mapping(document, load_catalog(document["catalog"]), name).catalog == document["catalog"]


def test_comments_and_order_do_not_change_what_a_mapping_means_but_a_delay_does() -> None:
    reordered = GOOD.replace("event_id: invoice\nentity_id: customer", "entity_id: customer # who\nevent_id: invoice")
    digest = parse(GOOD).digest  # type: ignore[attr-defined]
    assert parse(reordered).digest == digest  # type: ignore[attr-defined]
    assert parse(GOOD.replace("60", "61")).digest != digest  # type: ignore[attr-defined]
    assert 0 <= digest < 2**62


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("type: order", "type: ordr",
         "m.yaml: events[0].type; expected an event type of catalog 'retail': order, cancellation; got 'ordr'; next: "
         "declare the "
         "event type in the catalog or correct the mapping"),
        ("time_zone: UTC", "time_zone: Mars/Olympus",
         "m.yaml: time_zone; expected a name of the time zone database (Europe/London, UTC); got 'Mars/Olympus'; next: correct "
         "the mapping"),
        ("{items: quantity}", "{colour: quantity}",
         "m.yaml: events[0].attributes; expected keys among amount_cents, items, lines; got colour; next: correct the mapping"),
        ("    where:", "    filter:",
         "m.yaml: events[0]; expected keys among entity_id, event_id, event_time, ingest_time, region, group_by, join, type, "
         "entity, where, attributes, file; got filter; next: correct the mapping"),
        ("event_time: at\n", "",
         "m.yaml: events[0]; expected the key 'event_time'; got no such key; next: correct the mapping"),
        ("{delay_s: 60}", "{delay_s: soon}",
         "m.yaml: events[0].ingest_time.delay_s; expected seconds, a whole number from 0; got 'soon'; "
         "next: correct the mapping"),
        ("entity_id: customer", "entity_id: customer\nregion: {constant: us}",
         "m.yaml: events[0].region; expected one of eu; got 'us'; next: correct the mapping"),
        ("greater_than: 0", "greater: 0",
         "m.yaml: events[0].where[0]; expected keys among column, not, all, any, equals, not_equals, in, starts_with, "
         "greater_than, "
         "at_least, less_than, at_most, is_null; got greater; next: correct the mapping"),
        ("{items: quantity}", "{items: {sum: quantity}}",
         "m.yaml: events[0].attributes.items; expected no aggregate without group_by; got sum; next: correct the mapping"),
        ("event_id: invoice", "event_id: invoice\ngroup_by: [invoice, customer]",
         "m.yaml: events[0].event_time; expected one of sum, min, max, first for a column outside group_by; got at; next: "
         "correct "
         "the mapping"),
        ("event_time: at", "event_time: {column: at, time_of_day: 12:00}", # without quotes YAML reads 720
         "m.yaml: events[0].event_time.time_of_day; expected a quoted text such as '12:00' or '23:59:59'; got 720; next: "
         "correct the mapping"),
        ("event_time: at", "event_time: {constant: '2017-01-01'}",
         "m.yaml: events[0].event_time.constant; expected a quoted time with its zone, such as '2017-01-01T00:00:00Z'; got "
         "'2017-01-01'; next: correct the mapping"),
        ("event_time: at", "event_time: {column: at, epoch: s, time_of_day: '12:00'}",
         "m.yaml: events[0].event_time; expected a date where a time of day is stated; got an epoch; next: "
         "correct the mapping"),
        ("entity_id: customer", "entity_id: customer\njoin: [{file: side.csv}]",
         "m.yaml: events[0].join[0]; expected texts for file and on; got {'file': 'side.csv'}; next: correct the mapping"),
        ("{items: quantity}", "{items: {column: quantity, round: up}}",
         "m.yaml: events[0].attributes.items.round; expected half_away_from_zero; got 'up'; next: correct the mapping"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused_in_one_line(old: str, new: str, line: str) -> None:
    assert old in GOOD
    with pytest.raises(MappingError) as caught:
        parse(GOOD.replace(old, new))
    assert str(caught.value) == f"mapping does not fit: {line}"


def test_a_key_that_stands_twice_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    for text in (
        "catalog: retail\ncatalog: shop\n",
        "catalog: [retail\n",
        "- catalog\n",
        "events: []\n",
        "catalog: retail\nevent: []\n",
    ):
        path.write_text(text)
        with pytest.raises(MappingError, match=r"^mapping does not fit: m\.yaml") as caught:
            read_document(path)
        assert "\n" not in str(caught.value)


def test_a_mapping_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(MappingError) as caught:
        mapping_path("online_retail")
    assert str(caught.value) == (
        "mapping is not there: 'online_retail'; expected a YAML file or one of complete_journey, hotel_bookings, "
        "mathoverflow_events, online_retail_ii, subscription, subscription_accounts; got neither; next: correct the path or "
        "the name"
    )
