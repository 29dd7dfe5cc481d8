"""The services of a plane as their documents: checked, versioned, and on disk before anybody acts on them."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from features.errors import explain
from inference.plane.document import NAMESPACE, Service, read_service
from inference.plane.errors import ConflictError, DocumentError

SUFFIX: Final = ".json"


class Documents:
    """One file a service in one folder; a write is atomic and durable, so that a killed plane starts with what it last said.

    A file holds the document and, where it came from a file of the operator's, what that file said: the same file again
    changes nothing, however far a rollout has moved the weights since.
    """

    def __init__(self, folder: Path) -> None:
        """Read every document in the folder, which is made if there is none.

        Raises:
            DocumentError: a file there is damaged, or was written by a release that took other documents.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._stored: dict[str, dict[str, Any]] = {}
        self._services: dict[str, Service] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            record = _read_record(path)
            self._stored[path.stem] = record
            try:
                self._services[path.stem] = read_service(record["document"])
            except DocumentError as error:
                raise _damaged(path, str(error)) from error

    def names(self) -> list[str]:
        """Names of the services, in order."""
        return sorted(self._stored)

    def service(self, name: str) -> Service | None:
        """The service as it was read; None where there is none."""
        return self._services.get(name)

    def read(self, name: str) -> dict[str, Any] | None:
        """A copy of the document, without status; None where there is none."""
        record = self._stored.get(name)
        return None if record is None else copy.deepcopy(record["document"])

    def write(self, name: str, document: Mapping[str, Any], now_us: int, *, applied: object = None) -> Service:
        """Check and store the next version of a document.

        Args:
            name: of the service; the document must have the same.
            document: its ``metadata.resourceVersion`` must be the stored one's; absent for a new service.
            now_us: UTC microseconds; versions never go back, not even past a service that was deleted.
            applied: the operator's file that this comes from.
        Raises:
            DocumentError: the document is not one that this plane can run.
            ConflictError: it has changed since the caller read it, or is already there.
        """
        service = read_service(document)
        if service.name != name:
            raise DocumentError(
                explain("document has another name", which="metadata.name", expected=name, got=service.name,
                        next_step="correct the document")
            )  # fmt: skip
        stored = self._stored.get(name)
        metadata = dict(document["metadata"])
        current = None if stored is None else stored["document"]["metadata"]["resourceVersion"]
        if metadata.get("resourceVersion") != current:
            raise ConflictError(
                explain("document has changed meanwhile", which=f"{name}, resourceVersion", expected=str(current),
                        got=str(metadata.get("resourceVersion")), next_step="read it again and decide anew")
            )  # fmt: skip
        metadata |= {"namespace": NAMESPACE, "resourceVersion": str(max(int(current or 0) + 1, now_us))}
        record = {
            "document": {**{key: value for key, value in document.items() if key != "status"}, "metadata": metadata},
            "applied": stored["applied"] if stored and applied is None else applied,
        }
        _write_record(self._folder / f"{name}{SUFFIX}", record)
        self._stored[name], self._services[name] = copy.deepcopy(record), service
        return service

    def apply_file(self, content: Mapping[str, Any], now_us: int) -> bool:
        """Bring in the operator's file; whether it changed anything. One that says what it last said changes nothing.

        Raises:
            DocumentError: it is not a document that this plane can run.
        """
        name = read_service(content).name
        stored = self._stored.get(name)
        if stored is not None and stored["applied"] == content:
            return False
        version = {} if stored is None else {"resourceVersion": stored["document"]["metadata"]["resourceVersion"]}
        metadata = {key: value for key, value in content["metadata"].items() if key != "resourceVersion"} | version
        self.write(name, {**content, "metadata": metadata}, now_us, applied=dict(content))
        return True

    def delete(self, name: str) -> None:
        """Forget a service."""
        (self._folder / f"{name}{SUFFIX}").unlink()
        _sync(self._folder)
        del self._stored[name], self._services[name]


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(record, dict) or record.keys() != {"document", "applied"}:
        raise _damaged(path, "another structure")
    return record


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(orjson.dumps(record, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, got: str) -> DocumentError:
    return DocumentError(
        explain("stored service is damaged", which=str(path), expected="a document and the file it came from", got=got,
                next_step="remove the file and apply the service again")
    )  # fmt: skip
