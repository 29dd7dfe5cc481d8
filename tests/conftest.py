"""What every test process needs before anything else is imported."""

from __future__ import annotations

import os

from hypothesis import settings
from services.fixtures import control_url, kafka_server, postgresql_server, postgresql_url, redis_server, redis_url

from plumb.settings import prepare_native_libraries

__all__ = ["control_url", "kafka_server", "postgresql_server", "postgresql_url", "redis_server", "redis_url"]

# Before TensorFlow loads, and inherited by every process a test starts.
prepare_native_libraries(os.environ)

# The default run is the same every time; `pytest --hypothesis-profile=explore` searches further.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile("ci")
