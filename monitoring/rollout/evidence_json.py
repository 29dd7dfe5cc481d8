"""Evidence as text and back, exactly: arrays keep their bits, compressed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Final

import numpy as np

from features.errors import explain
from monitoring.errors import ObservationError
from monitoring.rollout.evidence import Evidence, Tally
from monitoring.rollout.histograms import Histograms
from monitoring.rollout.outcomes import Outcomes
from monitoring.rollout.pace import Pace
from monitoring.rollout.spans import Spans

FORMAT: Final = 2
_TYPES: Final[dict[str, Callable[..., Any]]] = {
    kind.__name__: kind for kind in (Evidence, Tally, Histograms, Outcomes, Pace, Spans)
}


def write_evidence(evidence: Evidence) -> str:
    """JSON of bounded size: at most about 150 kB, and 1 kB more for each of up to 512 features."""
    return json.dumps({"format": FORMAT, "evidence": _encode(evidence)}, separators=(",", ":"))


def read_evidence(text: str) -> Evidence:
    """The evidence that ``write_evidence`` wrote.

    Raises:
        ObservationError: the text is damaged or of another format.
    """
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise _unreadable(f"format {document['format']}")
        evidence = _decode(document["evidence"])
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise _unreadable(repr(error)) from error
    if not isinstance(evidence, Evidence):
        raise _unreadable(type(evidence).__name__)
    return evidence


def _unreadable(got: str) -> ObservationError:
    return ObservationError(
        explain("evidence cannot be read", which="what was kept of a rollout", expected=f"format {FORMAT}", got=got,
                next_step="none: the stage gathers it anew")
    )  # fmt: skip


def _encode(value: object) -> Any:
    if isinstance(value, np.ndarray):
        raw = np.packbits(value).tobytes() if value.dtype == np.bool_ else np.ascontiguousarray(value).tobytes()
        text = base64.b64encode(zlib.compress(raw, 1)).decode()
        return {"array": text, "dtype": str(value.dtype), "shape": list(value.shape)}
    if is_dataclass(value):
        return {"type": type(value).__name__, **{field.name: _encode(getattr(value, field.name)) for field in fields(value)}}
    if isinstance(value, dict):
        return {"mapping": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, tuple):
        return list(value)
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        raw, shape = zlib.decompress(base64.b64decode(value["array"])), tuple(value["shape"])
        if value["dtype"] == "bool":
            return np.unpackbits(np.frombuffer(raw, np.uint8), count=int(np.prod(shape))).astype(np.bool_).reshape(shape)
        return np.frombuffer(raw, value["dtype"]).reshape(shape).copy()
    if "mapping" in value:
        return {key: _decode(item) for key, item in value["mapping"].items()}
    return _TYPES[value["type"]](**{name: _decode(item) for name, item in value.items() if name != "type"})
