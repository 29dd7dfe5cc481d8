"""A registered model version on disk: what its ``model.json`` says, checked against the declarations at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from features.catalogs import load_catalog
from features.declarations import Catalog, Field, View
from features.errors import explain
from features.joins import joined_names
from inference.errors import ArtifactError

REQUIRED = (
    "catalog", "view", "view_hash", "integer_names", "finished_names", "transformed_names", "finished_groups", "groups",
    "delay_buckets_s", "profile_fields", "request_fields",
)  # fmt: skip


@dataclass(frozen=True)
class ModelArtifact:
    """One model version: where its SavedModel lies, the view it pins, and the names of what it takes and gives.

    Attributes:
        groups: signals and fields by which a score is explained, in the order of the contributions.
        finished_groups: for each finished feature, the group that it belongs to.
        delay_buckets_s: horizons of ``within``; empty for a model that answers for one horizon.
        slot_names: columns of ``slots``; empty but for a model of hours of the week.
    """

    path: Path
    catalog: Catalog
    view: View
    view_hash: str
    integer_names: tuple[str, ...]
    finished_names: tuple[str, ...]
    transformed_names: tuple[str, ...]
    finished_groups: tuple[str, ...]
    groups: tuple[str, ...]
    delay_buckets_s: tuple[int, ...]
    profile_fields: tuple[Field, ...]
    request_fields: tuple[Field, ...]
    slot_names: tuple[str, ...] = ()

    @property
    def sent_fields(self) -> tuple[Field, ...]:
        """What a caller may send of each row: request fields, and in the place of those that joins fill, their keys."""
        filled = joined_names(self.view)
        keys = (Field(join.key, "string", default="") for join in self.view.joins)
        return (*keys, *(entry for entry in self.request_fields if entry.name not in filled))

    @property
    def saved_model(self) -> Path:
        return self.path / "saved_model"


def read_artifact(path: Path) -> ModelArtifact:
    """Read a model folder.

    Raises:
        ArtifactError: ``model.json`` or the SavedModel is missing or incomplete, or the model was trained on another
            version of its view than this process declares.
    """
    content = _read_description(path)
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        raise _refuse("model description is incomplete", path, ", ".join(REQUIRED), f"no {', '.join(missing)}")
    if not (path / "saved_model" / "saved_model.pb").exists():
        raise _refuse("model folder is incomplete", path, "saved_model/saved_model.pb", "no such file")
    catalog = load_catalog(content["catalog"])
    view = catalog.view(content["view"]["name"])
    if content["view_hash"] != catalog.view_hash(view):
        raise _refuse(
            "model was trained on another version of its view",
            path,
            f"hash {catalog.view_hash(view)[:12]} of {view.key} as declared here",
            f"hash {content['view_hash'][:12]} of {content['view']['key']}",
        )
    return ModelArtifact(
        path=path,
        catalog=catalog,
        view=view,
        view_hash=content["view_hash"],
        integer_names=tuple(content["integer_names"]),
        finished_names=tuple(content["finished_names"]),
        transformed_names=tuple(content["transformed_names"]),
        finished_groups=tuple(content["finished_groups"]),
        groups=tuple(content["groups"]),
        delay_buckets_s=tuple(content["delay_buckets_s"]),
        profile_fields=_fields(content["profile_fields"]),
        request_fields=_fields(content["request_fields"]),
        slot_names=tuple(content.get("slot_names", ())),
    )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads((path / "model.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _refuse("model folder is incomplete", path, "model.json", "no such file") from error
    except orjson.JSONDecodeError as error:
        raise _refuse("model description is damaged", path, "a JSON object in model.json", str(error)) from error
    if not isinstance(content, dict):
        raise _refuse("model description is damaged", path, "a JSON object in model.json", type(content).__name__)
    return content


def _fields(entries: list[dict[str, Any]]) -> tuple[Field, ...]:
    return tuple(Field(entry["name"], entry["dtype"], entry["default"]) for entry in entries)


def _refuse(what: str, path: Path, expected: str, got: str) -> ArtifactError:
    return ArtifactError(
        explain(what, which=str(path), expected=expected, got=got, next_step="train and register the model again")
    )
