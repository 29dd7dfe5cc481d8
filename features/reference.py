"""What a model's world looked like when it was trained: a sample of finished features, scores and labels beside a version.

One Parquet file. ``now`` is when each row was drawn, ``score`` the served model's, ``label`` null where it had not matured;
every feature has a column ``feature:NAME``, float32 or string, null where the value was missing. Rows name no entity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import StoreError, explain
from features.rows import TIME

REFERENCE_FILE: Final = "reference.parquet"
PREFIX: Final = "feature:"
_FACTS: Final = b"reference"
_FIXED: Final = (
    pa.field("now", TIME, nullable=False), pa.field("score", pa.float32(), nullable=False), pa.field("label", pa.int8()),
)  # fmt: skip


@dataclass(frozen=True)
class ReferenceFacts:
    """What a reference says about its features.

    Attributes:
        importance: what the model's log loss loses by each feature, 0 where it was not measured; a group's is divided
            equally among its features.
        unobserved: features of the model of which the training rows know nothing but a default: request fields that no
            event carries. They are not in the file, since every request would differ from them.
        labels, positives: matured labels among all training rows, and how many of them are 1; the file's rows are the newest
            ones, whose labels may all be open.
    """

    importance: Mapping[str, float] = field(default_factory=dict)
    unobserved: tuple[str, ...] = ()
    labels: int = 0
    positives: int = 0


def write_reference(path: Path, fixed: Mapping[str, pa.Array], features: Mapping[str, pa.Array], facts: ReferenceFacts) -> None:
    """Write the file, whole or not at all.

    Args:
        fixed: ``now``, ``score`` and ``label``, (n,) each.
        features: (n,) float32 or string by feature.
    """
    fields = [*_FIXED, *(pa.field(f"{PREFIX}{name}", values.type) for name, values in features.items())]
    facts_json = json.dumps({**facts.__dict__, "importance": dict(facts.importance), "unobserved": list(facts.unobserved)})
    schema = pa.schema(fields, metadata={_FACTS: facts_json.encode()})
    arrays = [*(fixed[each.name].cast(each.type) for each in _FIXED), *features.values()]
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(pa.table(arrays, schema=schema), partial)
    partial.replace(path)


def read_reference(path: Path) -> tuple[pa.Table, ReferenceFacts]:
    """The rows, with ``PREFIX`` still before the features' names, and the facts.

    Raises:
        StoreError: there is no such file, or it is no reference.
    """
    try:
        table = pq.read_table(path)
        facts: Any = json.loads((table.schema.metadata or {})[_FACTS])
        known = [each for each in _FIXED if table.schema.field(each.name).type != each.type]
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _refusal(path, " ".join(str(error).split())) from error
    if known:
        raise _refusal(path, f"{known[0].name} of another type")
    return table, ReferenceFacts(**{**facts, "unobserved": tuple(facts["unobserved"])})


def _refusal(path: Path, got: str) -> StoreError:
    return StoreError(
        explain("reference of a model version cannot be read", which=str(path), expected=f"a {REFERENCE_FILE}", got=got,
                next_step="train and register the model again")
    )  # fmt: skip
