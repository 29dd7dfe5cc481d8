"""What the audit's tests share: one trained model, and sites that serve it."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit.site import make_model


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m")
