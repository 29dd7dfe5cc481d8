"""A small Kubeflow Pipelines server for tests: KFP's v2beta1 API over HTTP on loopback, with its state in memory.

It checks what the real one checks of these calls: references exist, names of versions are unique, an uploaded pipeline is
one that ``pipelines.lint`` finds no fault with. Replies have the real one's fields and its error bodies.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pipelines.lint import lint

PREFIX = "/apis/v2beta1"
PAGE = 2
CONFLICT = {"error": "Already exist", "code": 6, "message": "AlreadyExistError: The name is taken", "details": []}
NOT_FOUND: Final = (404, {"message": "Not Found"})
UPLOAD_CONFLICT = {"error_message": "AlreadyExistError: The name is taken", "error_details": "AlreadyExistError"}


@dataclass
class State:
    """What the server knows, and how it misbehaves.

    Attributes:
        token: the bearer token that it wants; empty for none.
        failures: (method, path below the prefix) to the status that every such call ends with.
        hidden_once: version names that the next listing leaves out, as if another client uploaded them meanwhile.
        calls: method and path of every call.
    """

    token: str = ""
    failures: dict[tuple[str, str], int] = field(default_factory=dict)
    hidden_once: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring_runs: list[dict[str, Any]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def id(self, kind: str) -> str:
        return f"{kind}-{next(self.numbers)}"


@contextmanager
def run_kfp_server(state: State) -> Iterator[str]:
    """Serve a state; gives the URL."""

    class Handler(_Handler):
        kfp = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    kfp: State

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = parts.path.removeprefix(PREFIX)
        self.kfp.calls.append(f"{method} {path}")
        if self.kfp.token and self.headers.get("Authorization") != f"Bearer {self.kfp.token}":
            reply = 401, {"error": "Unauthenticated", "code": 16, "message": "Request header error: there is no user identity"}
        elif (method, path) in self.kfp.failures:
            status = self.kfp.failures[method, path]
            reply = status, {"error": "broken", "code": 13, "message": f"InternalServerError: planted {status}"}
        elif not parts.path.startswith(PREFIX):
            reply = NOT_FOUND
        else:
            reply = self._answer(method, path, query, body)
        text = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            return self._list(path, query)
        if method == "DELETE":
            return self._delete(path)
        if path == "/pipelines/upload_version":
            return self._upload(query, body)
        return self._create(path, body)

    def _list(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kfp = self.kfp
        listed = {"/pipelines": ("pipelines", kfp.pipelines), "/experiments": ("experiments", kfp.experiments)}
        if path in listed:
            return 200, page(*listed[path], query)
        if path == "/recurringruns":
            mine = [entry for entry in kfp.recurring_runs if entry["experiment_id"] == query["experiment_id"]]
            return 200, page("recurringRuns", mine, query)
        found = re.fullmatch(r"/pipelines/([^/]+)/versions", path)
        if found is None:
            return NOT_FOUND
        mine = [entry for entry in kfp.versions if entry["pipeline_id"] == found[1]]
        shown = [entry for entry in mine if entry["display_name"] not in kfp.hidden_once]
        kfp.hidden_once.clear()
        return 200, page("pipeline_versions", shown, query)

    def _delete(self, path: str) -> tuple[int, dict[str, Any]]:
        found = re.fullmatch(r"/recurringruns/([^/]+)", path)
        kept = [entry for entry in self.kfp.recurring_runs if found is None or entry["recurring_run_id"] != found[1]]
        if len(kept) == len(self.kfp.recurring_runs):
            return NOT_FOUND
        self.kfp.recurring_runs[:] = kept
        return 200, {}

    def _create(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        creations = {
            "/pipelines": ("pipeline", self.kfp.pipelines), "/experiments": ("experiment", self.kfp.experiments),
            "/runs": ("run", self.kfp.runs), "/recurringruns": ("recurring_run", self.kfp.recurring_runs),
        }  # fmt: skip
        if path not in creations:
            return NOT_FOUND
        kind, entries = creations[path]
        made: dict[str, Any] = json.loads(body)
        reference = made.get("pipeline_version_reference")
        if kind in ("run", "recurring_run"):
            known = any(entry["pipeline_version_id"] == reference["pipeline_version_id"] for entry in self.kfp.versions)
            if not known or all(entry["experiment_id"] != made["experiment_id"] for entry in self.kfp.experiments):
                return 404, {"code": 5, "message": "ResourceNotFoundError: pipeline version or experiment"}
        elif any(entry["display_name"] == made["display_name"] for entry in entries):
            return 409, CONFLICT
        made[f"{kind}_id"] = self.kfp.id(kind)
        entries.append(made)
        return 200, made

    def _upload(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        kfp, name = self.kfp, query["name"]
        message = BytesParser().parsebytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
        text = parts["uploadfile"].get_payload(decode=True).decode()
        faults = lint(text)
        if faults:
            return 400, {"error_message": f"InvalidInputError: {faults[0]}", "error_details": faults[0]}
        if any(entry["display_name"] == name and entry["pipeline_id"] == query["pipelineid"] for entry in kfp.versions):
            return 409, UPLOAD_CONFLICT
        version = {"pipeline_id": query["pipelineid"], "pipeline_version_id": kfp.id("version"), "display_name": name,
                   "description": query.get("description", "")}  # fmt: skip
        kfp.versions.append(version)
        kfp.texts[version["pipeline_version_id"]] = text
        return 200, version


def page(key: str, entries: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """Entries that the filter lets through, a few at a time, as the API's listings answer."""
    for predicate in json.loads(query.get("filter", '{"predicates": []}'))["predicates"]:
        assert predicate["operation"] == "EQUALS"
        entries = [entry for entry in entries if entry.get(predicate["key"]) == predicate["string_value"]]
    if "namespace" in query:
        entries = [entry for entry in entries if entry.get("namespace") == query["namespace"]]
    start = int(query.get("page_token") or 0)
    following = str(start + PAGE) if start + PAGE < len(entries) else ""
    return {key: entries[start : start + PAGE], "total_size": len(entries), "next_page_token": following}
