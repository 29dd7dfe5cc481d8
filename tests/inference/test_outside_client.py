"""A client from outside, NVIDIA's tritonclient: health, metadata, V2 REST with binary tensors, and gRPC."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).with_name("outside_client.py")
Served = Any


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_an_outside_client_gets_health_metadata_scores_and_candidates(served: Served, kind: str) -> None:
    address = served.url.removeprefix("http://") if kind == "http" else served.grpc
    done = subprocess.run([sys.executable, CLIENT, kind, address], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
