"""Room on disk that was taken beforehand, so that a canary's share can be lowered durably when the disk is full.

A file beside a service's record holds two slots of 512 bytes, a sector each, written once when there was room. A reduction
that the record has no room for is written over the older slot in place, which asks the file system for nothing new (one that
copies on write, such as btrfs, may refuse that too). A slot names the version of the record that it lowers; a newer record
makes it void. A checksum tells a slot that was cut short.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

SLOT_BYTES: Final = 512
SLOTS: Final = 2


@dataclass(frozen=True)
class Lowered:
    """A reduction: of the record of version ``of``, to ``percent`` for its canary, as version ``version``."""

    of: int
    version: int
    percent: int


class Reserve:
    """The slots of one service."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Take the room, where that has not been done.

        Raises:
            OSError: there is none.
        """
        if self._path.exists() and self._path.stat().st_size == SLOTS * SLOT_BYTES:
            return
        try:
            with self._path.open("wb") as file:
                file.write(b" " * (SLOTS * SLOT_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.remove()
            raise

    def write(self, lowered: Lowered) -> None:
        """Write a reduction in place, durably; the one before stays whole until it is.

        Raises:
            OSError: even that is refused.
        """
        content = orjson.dumps([lowered.of, lowered.version, lowered.percent])
        line = b"%s %08x\n" % (content, zlib.crc32(content))
        kept = self._slots()
        newest = max(range(SLOTS), key=lambda place: kept[place].version if kept[place] else -1)  # type: ignore[union-attr]
        descriptor = os.open(self._path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, line.ljust(SLOT_BYTES), ((newest + 1) % SLOTS) * SLOT_BYTES)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, version: int) -> Lowered | None:
        """The newest reduction of the record of this version; None where there is none."""
        found = [slot for slot in self._slots() if slot is not None and slot.of == version]
        return max(found, key=lambda slot: slot.version, default=None)

    def remove(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _slots(self) -> list[Lowered | None]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            content = b""
        return [_read_slot(content[place * SLOT_BYTES : (place + 1) * SLOT_BYTES]) for place in range(SLOTS)]


def _read_slot(slot: bytes) -> Lowered | None:
    content, _, checksum = slot.rstrip().rpartition(b" ")
    if not content or checksum != b"%08x" % zlib.crc32(content):
        return None
    return Lowered(*orjson.loads(content))
