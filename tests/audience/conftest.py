"""One planted shop, one small model of it with two towers, registered: what every test of audiences starts from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from planted.campaigns import DAY_US, DAYS, START_US, plant_campaigns

from components.audiences import AudienceSite
from components.declarations import declarations_of
from components.training_rows import build_training_rows
from features.workspace import Workspace
from models.specs import load_spec
from models.train import train
from transforms.export import export_model
from transforms.fit import fit_graph
from transforms.materialize import materialize
from transforms.scoring import close_stores

USERS = 150
AS_OF_US = START_US + DAYS * DAY_US
CONTENT = {"offer": "coupon", "channel": "email", "discount_percent": 10, "duration_days": 14, "products": 40}
POLICY: dict[str, Any] = {
    "most_campaigns": 6,
    "counted_by": "campaigns_received_count_7d",
    "campaigns": [
        {"name": f"{category}-week", "content": CONTENT | {"category": category}, "threshold": threshold, "size": size}
        for category, threshold, size in (("grocery", 0.2, None), ("home", 0.2, 20), ("produce", 0.3, None))
    ],
}


@dataclass(frozen=True)
class Shop:
    """The workspace with the log, and the model's folder with ``saved_model`` and ``evaluation.json``."""

    workspace: Workspace
    model: Path
    run: Path

    def site(self, workspace: Workspace | None = None, **changes: Any) -> AudienceSite:
        """Audiences of the model in this or another workspace, with a store filled as of the log's end."""
        chosen = workspace or self.workspace
        _, view = declarations_of("audience")
        site = AudienceSite(chosen, "audience", 1, self.model / "saved_model", str(chosen.online(view.key)), POLICY)
        return replace(site, **changes)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = tmp_path_factory.mktemp("shop")
    workspace, run, model = Workspace(root), root / "run", root / "model"
    run.mkdir()
    plant_campaigns(workspace, users=USERS)
    build_training_rows(workspace, "audience", 0, run / "rows.parquet")
    spec = load_spec("audience")
    fit_graph(run / "rows.parquet", *declarations_of("audience"), run / "graph")
    small = replace(spec, refit=False, network=replace(spec.network, hidden=(16,), epochs=25, patience=4))
    train(small, run / "graph" / "features.parquet", run / "network", seed=0)
    export_model(run / "graph", run / "network" / "network.keras", model)
    return Shop(workspace, model, run)


@pytest.fixture
def own_shop(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """A copy whose log, store and audiences a test may change."""
    for name in ("events", "profiles"):
        if (shop.workspace.root / name).exists():
            shutil.copytree(shop.workspace.root / name, tmp_path / name)
    workspace = Workspace(tmp_path)
    catalog, _ = declarations_of("audience")
    for view in catalog.views:
        materialize(workspace, catalog, view, as_of_us=AS_OF_US)
    yield Shop(workspace, shop.model, shop.run)
    close_stores()
