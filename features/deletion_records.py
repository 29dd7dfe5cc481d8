"""The audit log of deletions: one JSON document a request, whole or not there, that no id can be read from.

Who asked, when and why stands in it, what was removed where, and a keyed hash of each entity: whoever has an id and the
workspace's key can ask whether it was erased; nobody can list whom it concerned. A request that a crash cut short stays
open and is completed by the next one for the same entities.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from features.errors import EventLogError, explain

KEY_NAME: Final = "key"
KEY_BYTES: Final = 32
HASH_BYTES: Final = 16


@dataclass(frozen=True)
class Request:
    """What stands in one document.

    Attributes:
        id: names the request, also in its markers.
        entity: the entity type.
        hashes: of the entities, ascending.
        requested_us, completed_us: UTC microseconds; 0 while it is open.
        counts: rows, states or files removed, by place.
        waiting: what still holds something, and for what; empty once it is complete.
    """

    id: str
    entity: str
    hashes: list[str]
    who: str
    reason: str
    requested_us: int
    completed_us: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def counted(self, place: str, count: int) -> Request:
        """With so much more removed at a place."""
        return replace(self, counts={**self.counts, place: self.counts.get(place, 0) + count})


class DeletionRecords:
    """The documents and the key of one workspace, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_request(self, entity: str, entity_ids: Iterable[str], *, who: str, reason: str, now_us: int) -> Request:
        """The open request for these very entities, or a new one, on disk when this returns."""
        hashes = sorted(set(map(self.hash_of, entity_ids)))
        for request in self.list_requests():
            if (request.entity, request.hashes, request.completed_us) == (entity, hashes, 0):
                return request
        request = Request(f"{now_us}-{secrets.token_hex(4)}", entity, hashes, who, reason, now_us)
        self.write(request)
        return request

    def write(self, request: Request) -> None:
        """Replace the request's document; it is on disk when this returns."""
        self._write(self._folder / f"{request.id}.json", orjson.dumps(asdict(request), option=orjson.OPT_INDENT_2))

    def list_requests(self, entity_id: str | None = None) -> Iterator[Request]:
        """All requests in the order in which they were made, or those that concern one entity.

        Raises:
            EventLogError: a document is no such document.
        """
        wanted = self.hash_of(entity_id) if entity_id is not None else None
        for path in sorted(self._folder.glob("*.json")):
            try:
                request = Request(**orjson.loads(path.read_bytes()))
            except (orjson.JSONDecodeError, TypeError) as error:
                raise EventLogError(
                    explain("deletion record cannot be read", which=str(path), expected="a document of this product",
                            got=str(error), next_step="restore the file from its copy")
                ) from error  # fmt: skip
            if wanted is None or wanted in request.hashes:
                yield request

    def hash_of(self, entity_id: str) -> str:
        """Keyed BLAKE2b of an id, as hexadecimal digits."""
        return hashlib.blake2b(entity_id.encode(), key=self._key(), digest_size=HASH_BYTES).hexdigest()

    def _key(self) -> bytes:
        """The workspace's key; the first call makes it. Without it nobody can tell whom the records concern."""
        path = self._folder / KEY_NAME
        if not path.exists():
            self._write(path, secrets.token_bytes(KEY_BYTES), replacing=False)
        return path.read_bytes()

    def _write(self, path: Path, data: bytes, *, replacing: bool = True) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replacing:
            partial.rename(path)
        else:
            # Of two processes that make a key at once, the first one's stays.
            try:
                os.link(partial, path)
            except FileExistsError:
                pass
            finally:
                partial.unlink()
