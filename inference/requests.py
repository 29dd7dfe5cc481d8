"""What callers ask, in columns, and how single values of it are read: V1 and V2 mean the same and are checked alike.

JSON gives text where binary tensors give bytes; both end as ``str`` here. Nothing is guessed: an unknown field or
parameter, a wrong type and a missing entity id are each answered with one line. ``instances`` reads V1, ``tensors`` V2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from features.declarations import Field
from inference.errors import RequestError, bad_request

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MIN_NOW_US: Final = 631_152_000 * 1_000_000
"""1990-01-01: a smaller ``now`` is a number of seconds or milliseconds sent as microseconds."""
MAX_NOW_US: Final = 4_102_444_800 * 1_000_000
"""2100-01-01: a larger ``now`` is a number of nanoseconds sent as microseconds."""

INT64_LIMIT: Final = 1 << 63
ENTITY: Final = "entity_id"
NOW: Final = "now"
CANDIDATES: Final = "candidates"
FEATURES: Final = "features"
EXPLAIN: Final = "explain"


@dataclass(frozen=True)
class ScoreRequest:
    """One decoded request of u entities and n scores.

    Attributes:
        entity_ids: (u,) ids as the caller sent them; they may repeat.
        now_us: (u,) UTC microseconds at which each entity is scored.
        fields: (n,) values of every request field of the view, defaults filled in.
        with_features: whether the reply carries the features behind the score.
        with_explanation: whether the reply carries each signal's contribution to the score.
        candidates: (u,) how many rows of ``fields`` are each entity's candidates, one after another, and None for an
            entity that is scored once; None where no entity has candidates, and then n is u.
    """

    entity_ids: list[str]
    now_us: list[int]
    fields: Mapping[str, list[Any]]
    with_features: bool
    with_explanation: bool = False
    candidates: list[int | None] | None = None

    @property
    def counts(self) -> list[int]:
        """(u,) scores of each entity."""
        if self.candidates is None:
            return [1] * len(self.entity_ids)
        return [1 if count is None else count for count in self.candidates]

    @property
    def rows(self) -> int:
        """n."""
        return len(self.entity_ids) if self.candidates is None else sum(self.counts)


@dataclass(frozen=True)
class RequestForm:
    """What a request to one model may hold: its view's request fields, and the most scores it may ask for or explain."""

    fields: tuple[Field, ...]
    max_entities: int
    max_explained: int

    def names(self) -> str:
        return ", ".join((ENTITY, NOW, *(field.name for field in self.fields)))

    def check_count(self, count: int, which: str = "instances") -> None:
        if not 0 < count <= self.max_entities:
            what = "request has a wrong number of " + ("entities" if which == "instances" else which)
            raise bad_request(what, which=which, got=str(count), expected=f"1 to {self.max_entities}")

    def check_explained(self, count: int) -> bool:
        """True, for a request that asks for explanations of this many entities."""
        if count > self.max_explained:
            raise bad_request("request asks for too many explanations", which="instances", got=str(count),
                              expected=f"1 to {self.max_explained} entities with {EXPLAIN}")  # fmt: skip
        return True

    def check(self, request: ScoreRequest) -> ScoreRequest:
        """The request, if features and explanations are asked of entities that are scored once, and of few enough."""
        if request.candidates is not None and (request.with_features or request.with_explanation):
            raise bad_request("request asks for more than the scores of candidates", which=CANDIDATES, got="more",
                              expected=f"scores alone; {FEATURES} and {EXPLAIN} go with one instance a candidate")  # fmt: skip
        if request.with_explanation:
            self.check_explained(len(request.entity_ids))
        return request


def read_object(value: object, which: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A JSON object that has no other names than the known ones."""
    if not isinstance(value, dict):
        raise bad_request("not a JSON object", which=which, expected="an object", got=type(value).__name__)
    unknown = [name for name in value if name not in known]
    if unknown:
        raise bad_request("unknown name", which=f"{unknown[0]!r} in {which}", expected=" or ".join(known), got=repr(unknown[0]))
    return value


def read_flag(parameters: Mapping[str, Any], name: str) -> bool:
    """A parameter that is true or false; false where it is not given."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise bad_request("parameter has a wrong type", which=name, expected="true or false", got=repr(value)[:80])
    return value


def read_text(value: object, name: str, row: int) -> str:
    """Text, or its UTF-8 bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise bad_request("value is no UTF-8 text", which=f"{name} of row {row}", expected="UTF-8 bytes",
                              got=repr(value)[:80]) from error  # fmt: skip
    raise wrong_type(value, name, row, "text")


def read_integer(value: object, name: str, row: int) -> int:
    """A 64-bit integer."""
    if isinstance(value, int) and not isinstance(value, bool) and -INT64_LIMIT <= value < INT64_LIMIT:
        return value
    raise wrong_type(value, name, row, "a 64-bit integer")


def wrong_type(value: object, name: str, row: int, expected: str) -> RequestError:
    """The error of a value that is not what its column holds."""
    return bad_request("value has a wrong type", which=f"{name} of row {row}", expected=expected,
                       got=f"{type(value).__name__} {value!r}"[:80])  # fmt: skip


def read_instant(value: object, row: int) -> int:
    """``now`` as UTC microseconds: an integer that already is, or ISO 8601 text that names its zone."""
    moment = value
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError as error:
            raise _bad_now(value, row, str(error)) from error
        if parsed.tzinfo is None:
            raise _bad_now(value, row, "no time zone")
        moment = (parsed - EPOCH) // MICROSECOND
    if not isinstance(moment, int) or isinstance(moment, bool):
        raise _bad_now(value, row, type(value).__name__)
    if not MIN_NOW_US <= moment < MAX_NOW_US:
        raise _bad_now(value, row, "a time before 1990 or after 2100")
    return moment


def _bad_now(value: object, row: int, got: str) -> RequestError:
    return bad_request("now is no usable time", which=f"{value!r}"[:60] + f" of row {row}",
                       expected="UTC microseconds, or ISO 8601 with a zone, such as 2025-03-01T12:00:00Z", got=got)  # fmt: skip
