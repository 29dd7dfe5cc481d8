"""Alertmanager as we use it: alerts that it has, and silences that it is told (its API, version 2)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any, Final

from features.errors import explain
from monitoring.errors import AlertError, AlertmanagerUnavailable

TIMEOUT_S: Final = 5.0
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BAD_REQUEST: Final = 400
SERVER_ERROR: Final = 500


@dataclass(frozen=True)
class Fired:
    """One alert as Alertmanager has it; ``silenced_by`` and ``inhibited_by`` say why nobody is told."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_us: int
    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Silence:
    """Alerts whose labels equal ``labels`` are told to nobody from ``at_us`` to ``until_us`` (UTC microseconds)."""

    labels: Mapping[str, str]
    who: str
    why: str
    at_us: int
    until_us: int


class Alertmanager:
    """A client of one Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def list_alerts(self) -> list[Fired]:
        """Every alert that fires, silenced and inhibited ones too.

        Raises:
            AlertmanagerUnavailable: it does not answer.
        """
        found = self._call("/api/v2/alerts")
        try:
            return [
                Fired(
                    labels=entry["labels"],
                    annotations=entry["annotations"],
                    starts_us=read_instant(entry["startsAt"]),
                    silenced_by=tuple(entry["status"]["silencedBy"]),
                    inhibited_by=tuple(entry["status"]["inhibitedBy"]),
                )
                for entry in found
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._unavailable(f"something else: {str(found)[:200]}") from error

    def silence(self, silence: Silence) -> str:
        """Begin a silence; gives its id.

        Raises:
            AlertError: it refuses.
            AlertmanagerUnavailable: it does not answer.
        """
        matchers = [{"name": name, "value": value, "isRegex": False} for name, value in silence.labels.items()]
        body = {
            "matchers": matchers, "startsAt": show_instant(silence.at_us), "endsAt": show_instant(silence.until_us),
            "createdBy": silence.who, "comment": silence.why,
        }  # fmt: skip
        return str(self._call("/api/v2/silences", body)["silenceID"])

    def _call(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(f"{self.url}{path}", data=data, headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:300]
            if BAD_REQUEST <= error.code < SERVER_ERROR:
                raise AlertError(
                    explain("Alertmanager refuses", which=path, expected="a request that it takes", got=f"{error.code}: {said}",
                            next_step="correct the request")
                ) from error  # fmt: skip
            raise self._unavailable(f"{error.code}: {said}") from error
        except (OSError, ValueError, HTTPException) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, got: str) -> AlertmanagerUnavailable:
        return AlertmanagerUnavailable(
            explain("Alertmanager does not answer", which=self.url, expected="its API, version 2", got=got,
                    next_step="is it running? plumb up starts it")
        )  # fmt: skip


def read_instant(text: str) -> int:
    """UTC microseconds of an instant as Go writes it: up to nine digits of a second.

    Example:
        >>> read_instant("1970-01-01T00:00:01.500000001Z"), read_instant("1970-01-01T01:00:00+01:00")
        (1500000, 0)
    """
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def show_instant(us: int) -> str:
    """ISO 8601 in UTC."""
    return (EPOCH + timedelta(microseconds=us)).isoformat()
