"""JSON patches (RFC 6902): the operations test, add, replace and remove, on documents of objects and lists."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from features.errors import explain
from inference.plane.errors import ConflictError, PatchError

OPERATIONS: Final = ("test", "add", "replace", "remove")
RESOURCE_VERSION: Final = "/metadata/resourceVersion"


def apply_patch(document: Mapping[str, Any], operations: object) -> dict[str, Any]:
    """A patched copy; the operations are applied in order, all or none.

    Raises:
        ConflictError: a test of ``/metadata/resourceVersion`` failed.
        PatchError: any other test failed, a path does not exist, or the patch is not one.

    Example:
        >>> apply_patch({"a": [1]}, [{"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 2}])
        {'a': [1, 2]}
    """
    if not isinstance(operations, list):
        raise _refuse("not a JSON patch", "body", "a list of operations", type(operations).__name__)
    patched: dict[str, Any] = copy.deepcopy(dict(document))
    for row, operation in enumerate(operations):
        _apply(patched, operation, f"operation {row}")
    return patched


def _apply(document: dict[str, Any], operation: object, which: str) -> None:
    if not isinstance(operation, Mapping) or operation.get("op") not in OPERATIONS:
        raise _refuse("unknown operation", which, " or ".join(OPERATIONS), repr(operation))
    verb, path = operation["op"], operation.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise _refuse("operation has no usable path", which, "a JSON pointer such as /spec/canary/0", repr(path))
    if verb != "remove" and "value" not in operation:
        raise _refuse("operation has no value", f"{which} ({verb} {path})", "a value", "none")
    parent, key = _find_parent(document, path, which)
    exists = key in parent if isinstance(parent, dict) else key < len(parent)
    if verb == "test":
        found = parent[key] if exists else None
        if not exists or not _equal(found, operation["value"]):
            kind = ConflictError if path == RESOURCE_VERSION else PatchError
            raise kind(explain("document is not as expected", which=path, expected=repr(operation["value"])[:200],
                               got=repr(found)[:200] if exists else "nothing", next_step="read it again"))  # fmt: skip
        return
    if verb != "add" and not exists:
        raise _refuse("path does not exist", f"{which} ({verb} {path})", "an existing field", "nothing")
    if verb == "remove":
        del parent[key]
    elif verb == "add" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(operation["value"]))
    else:
        parent[key] = copy.deepcopy(operation["value"])


def _find_parent(document: dict[str, Any], path: str, which: str) -> tuple[Any, Any]:
    """The object or list that holds the path's last part, and that part as its key or index."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    place: Any = document
    for depth, part in enumerate(parts):
        if isinstance(place, list):
            if part != "-" and not (part.isascii() and part.isdecimal() and str(int(part)) == part):
                raise _refuse("not a place in a list", f"{which} ({path})", "an index or -", repr(part))
            key: Any = len(place) if part == "-" else int(part)
            known = key <= len(place) if depth == len(parts) - 1 else key < len(place)
        else:
            key, known = part, isinstance(place, dict) and (depth == len(parts) - 1 or part in place)
        if not known:
            raise _refuse("path does not exist", f"{which} ({path})", "an existing parent", repr(part))
        if depth < len(parts) - 1:
            place = place[key]
    return place, key


def _equal(one: object, other: object) -> bool:
    """Equality as JSON has it: ``1`` equals ``1.0``, but not ``true``."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _refuse(what: str, which: str, expected: str, got: str) -> PatchError:
    return PatchError(explain(what, which=which, expected=expected, got=got[:200], next_step="correct the patch"))
