"""The services of a plane as their documents: checked, versioned, and on disk before anybody acts on them.

One thing does not wait for the disk: that a canary gets less. Where its record cannot be written, it is written into room that
was reserved for it (``reserve``), takes effect, and is pending until the record can be written too.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from features.errors import explain
from inference.plane.document import NAMESPACE, Service, read_service
from inference.plane.errors import ConflictError, DocumentError, NotRecorded
from inference.plane.reserve import Lowered, Reserve

SUFFIX: Final = ".json"
RESERVED: Final = ".reserve"


class Documents:
    """One file a service in one folder; a write is atomic and durable, so that a killed plane starts with what it last said.

    A file holds the document and, where it came from a file of the operator's, what that file said: the same file again
    changes nothing, however far a rollout has moved the weights since.

    Attributes:
        pending: why the newest document of a service is not on disk yet, by its name.
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
        self._on_disk: dict[str, int] = {}
        self.pending: dict[str, str] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            record = _read_record(path)
            try:
                self._on_disk[path.stem] = int(record["document"]["metadata"]["resourceVersion"])
                self._stored[path.stem] = self._lower(path.stem, record)
                self._services[path.stem] = read_service(self._stored[path.stem]["document"])
            except (DocumentError, KeyError, ValueError, TypeError) as error:
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
        """Check and store the next version of a document. A reduction is taken though it cannot be stored; it is pending then.

        Args:
            name: of the service; the document must have the same.
            document: its ``metadata.resourceVersion`` must be the stored one's; absent for a new service.
            now_us: UTC microseconds; versions never go back, not even past a service that was deleted.
            applied: the operator's file that this comes from.
        Raises:
            DocumentError: the document is not one that this plane can run.
            ConflictError: it has changed since the caller read it, or is already there.
            NotRecorded: it could not be written, and takes no effect.
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
        try:
            self._write_record(name, record)
        except OSError as error:
            if not _lowers(self._services.get(name), service):
                raise _not_recorded(name, error) from error
            self.pending[name] = self._reserve_lower(name, int(metadata["resourceVersion"]), service, error)
        self._stored[name], self._services[name] = copy.deepcopy(record), service
        return service

    def write_pending(self) -> list[str]:
        """Write what could not be written before; the names of the services whose documents are on disk again."""
        written = []
        for name in list(self.pending):
            try:
                self._write_record(name, self._stored[name])
            except OSError:
                continue
            written.append(name)
        return written

    def _write_record(self, name: str, record: Mapping[str, Any]) -> None:
        self._reserve(name).prepare()  # first: a record that has no room for its own reduction is not taken
        _write_file(self._folder / f"{name}{SUFFIX}", record)
        self._on_disk[name] = int(record["document"]["metadata"]["resourceVersion"])
        self.pending.pop(name, None)

    def _reserve_lower(self, name: str, version: int, service: Service, error: OSError) -> str:
        """Write a reduction into its reserved room; why it is pending, and what a restart would make of it."""
        percent = service.canary.percent if service.canary else 0
        try:
            self._reserve(name).write(Lowered(self._on_disk[name], version, percent))
        except OSError as worse:
            return f"{error}; not even the reserved room ({worse}): a restart would bring back what was written last"
        return f"{error}; the reserved room holds {percent} % for the canary, also after a restart"

    def _lower(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """A record as it was read, at the share that its reserved room says."""
        lowered = self._reserve(name).read(self._on_disk[name])
        canaries = record["document"]["spec"].get("canary")
        if lowered is None or not canaries:
            return record
        document = copy.deepcopy(record["document"])
        document["spec"]["canary"][0]["trafficPercent"] = min(lowered.percent, canaries[0]["trafficPercent"])
        document["metadata"]["resourceVersion"] = str(lowered.version)
        self.pending[name] = f"lowered to {lowered.percent} % while the disk was full"
        return {**record, "document": document}

    def _reserve(self, name: str) -> Reserve:
        return Reserve(self._folder / f"{name}{RESERVED}")

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
        self._reserve(name).remove()
        _sync(self._folder)
        del self._stored[name], self._services[name], self._on_disk[name]
        self.pending.pop(name, None)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(record, dict) or record.keys() != {"document", "applied"}:
        raise _damaged(path, "another structure")
    return record


def _lowers(before: Service | None, after: Service) -> bool:
    """Whether all that changes is that the canary gets less, or is gone."""
    if before is None or before.canary is None:
        return False
    same = (before.stable, before.logger, before.split) == (after.stable, after.logger, after.split)
    if after.canary is None:
        return same
    canary = (before.canary.predictor, before.salt) == (after.canary.predictor, after.salt)
    return same and canary and after.canary.percent < before.canary.percent


def _write_file(path: Path, record: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # half a record would hold on to room that the next one needs
        raise
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_recorded(name: str, error: OSError) -> NotRecorded:
    return NotRecorded(
        explain("document cannot be written", which=name, expected="room on disk", got=str(error),
                next_step="make room; only less for the canary, or none, is taken meanwhile")
    )  # fmt: skip


def _damaged(path: Path, got: str) -> DocumentError:
    return DocumentError(
        explain("stored service is damaged", which=str(path), expected="a document and the file it came from", got=got,
                next_step="remove the file and apply the service again")
    )  # fmt: skip
