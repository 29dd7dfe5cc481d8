"""KServe's V1 body as columns: instances by entity, and candidates of one entity that are scored together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import orjson

from features.declarations import Field
from inference.errors import RequestError, bad_request
from inference.requests import (
    CANDIDATES,
    ENTITY,
    EXPLAIN,
    FEATURES,
    INT64_LIMIT,
    NOW,
    RequestForm,
    ScoreRequest,
    read_flag,
    read_instant,
    read_integer,
    read_object,
    read_text,
    wrong_type,
)

PARAMETERS: Final = (FEATURES, EXPLAIN)
JsonObject = dict[str, Any]


def decode_v1(body: object, form: RequestForm, clock_us: int) -> ScoreRequest:
    """Decode ``{"instances": [{"entity_id": ..., "now": ..., FIELD: ...}], "parameters": {...}}``.

    An instance may have ``candidates``, a list of objects of request fields: it is scored once for each of them, and a field
    that a candidate does not name is the instance's own. The parameters ``features`` and ``explain`` are true or false.

    Args:
        body: parsed JSON, or its bytes.
        form: what the model takes.
        clock_us: the time at which an instance without ``now`` is scored, UTC microseconds.

    Raises:
        RequestError: the body is not of that form.
    """
    content = read_object(_parse(body) if isinstance(body, bytes) else body, "body", ("instances", "parameters"))
    parameters = read_object(content.get("parameters") or {}, "parameters", PARAMETERS)
    instances = content.get("instances")
    if not isinstance(instances, list):
        raise bad_request("instances are missing", which="body", expected="a list named instances",
                          got=type(instances).__name__)  # fmt: skip
    form.check_count(len(instances))
    names = frozenset(field.name for field in form.fields)
    known = names | {ENTITY, NOW, CANDIDATES}
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict) or not instance.keys() <= known or ENTITY not in instance:
            raise _bad_instance(row, instance, form)
    lists = [entry.get(CANDIDATES) for entry in instances]
    candidates = _count_candidates(lists, names, form) if any(CANDIDATES in entry for entry in instances) else None
    if candidates is None:
        fields = {field.name: _column(instances, field) for field in form.fields}
    else:
        fields = {field.name: _candidate_column(instances, lists, field) for field in form.fields}
    return form.check(
        ScoreRequest(
            entity_ids=[read_text(entry[ENTITY], ENTITY, row) for row, entry in enumerate(instances)],
            now_us=[read_instant(entry[NOW], row) if NOW in entry else clock_us for row, entry in enumerate(instances)],
            fields=fields,
            with_features=read_flag(parameters, FEATURES),
            with_explanation=read_flag(parameters, EXPLAIN),
            candidates=candidates,
        )
    )


def _parse(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request("body is no JSON", which="request body", expected="a JSON object", got=str(error)) from error


def _bad_instance(row: int, instance: object, form: RequestForm) -> RequestError:
    which = f"instances[{row}]"
    if not isinstance(instance, dict):
        return bad_request("instance is no object", which=which, expected=f"an object with {form.names()}",
                           got=type(instance).__name__)  # fmt: skip
    if ENTITY not in instance:
        return bad_request(
            "entity_id is missing", which=which, expected="entity_id as text", got=", ".join(instance) or "nothing"
        )
    unknown = next(name for name in instance if name not in form.names().split(", ") and name != CANDIDATES)
    return bad_request("unknown request field", which=f"{unknown!r} in {which}", expected=form.names(), got=repr(unknown))


def _count_candidates(lists: list[Any], names: frozenset[str], form: RequestForm) -> list[int | None]:
    """How many candidates each instance has, after they have been found to be lists of objects of known fields."""
    for row, given in enumerate(lists):
        if given is None:
            continue
        if (
            not isinstance(given, list)
            or not given
            or set(map(type, given)) != {dict}
            or not names.issuperset(set().union(*given))
        ):
            raise bad_request("candidates are no list of request fields", which=f"{CANDIDATES} of instances[{row}]",
                              expected=f"objects with {', '.join(sorted(names)) or 'no field'}, one or more",
                              got=repr(given)[:80])  # fmt: skip
    form.check_count(sum(1 if given is None else len(given) for given in lists), CANDIDATES)
    return [None if given is None else len(given) for given in lists]


def _column(instances: list[JsonObject], field: Field) -> list[Any]:
    read: Callable[[object, str, int], str | int] = read_text if field.dtype == "string" else read_integer
    name, default = field.name, field.default
    return [read(entry[name], name, row) if name in entry else default for row, entry in enumerate(instances)]


def _candidate_column(instances: list[JsonObject], lists: list[list[JsonObject] | None], field: Field) -> list[Any]:
    name = field.name
    parts = []
    for entry, given in zip(instances, lists, strict=True):
        own = entry.get(name, field.default)
        parts.append([own] if given is None else [candidate.get(name, own) for candidate in given])
    values: list[Any] = list(chain.from_iterable(parts))
    # All at once, because a hundred candidates have a hundred values; which of them is wrong is asked only if one is.
    wanted = str if field.dtype == "string" else int
    if set(map(type, values)) != {wanted} or (wanted is int and not -INT64_LIMIT <= min(values) <= max(values) < INT64_LIMIT):
        row = next(row for row, value in enumerate(values) if not _fits(value, wanted))
        raise wrong_type(values[row], name, row, "text" if wanted is str else "a 64-bit integer")
    return values


def _fits(value: object, wanted: type) -> bool:
    return type(value) is wanted and (wanted is str or -INT64_LIMIT <= value < INT64_LIMIT)  # type: ignore[operator]
