"""A PostgreSQL that is really ended and started again while a rollout runs. Requests are answered throughout: what routes them
has no connection to it; the rollout stands still, upwards, and comes back without a restart of its controller."""

from __future__ import annotations

import signal
from pathlib import Path

from e2e.rollouts.document_plane import SERVICE
from e2e.rollouts.simulated import broken_score, open_town
from services.servers import run_restartable_postgresql

from monitoring.rollout.records import read_dossier


def test_a_rollout_over_a_database_that_ends_twice(tmp_path: Path) -> None:
    with run_restartable_postgresql() as database, open_town(tmp_path, database.url) as town:
        town.start()
        controller = town.controller()
        town.run(controller, seconds=4)
        assert town.percent == 10

        database.stop()
        received = controller.collector.received
        town.run(controller, seconds=15)  # three times what the stage takes
        assert town.percent == 10
        assert controller.collector.received == received + 15 * town.rate  # every request was routed, and is seen
        assert [line for line in town.told if line.startswith("blind: control database did not answer")]

        database.start()
        town.run(controller, seconds=15, until=lambda: town.percent == 50)
        town.run(controller, seconds=2)
        steps = read_dossier(town.workspace, 1).steps
        assert [(step.action, step.percent) for step in steps] == [("request", 0), ("start", 10), ("shift", 50)]

        database.stop(signal.SIGQUIT)  # as a crash: the next start recovers
        town.answer = broken_score
        town.run(controller, seconds=20, until=lambda: town.percent == 0)
        assert town.percent == 0
        assert [line for line in town.told if line.startswith("rollout 1: 0 % without a new record, because score")]

        database.start()
        town.run(controller, seconds=20, until=lambda: not town.standing.needs_controller)
        assert (town.phase, town.standing.step.percent, town.traffic.read(SERVICE).canary) == ("rolled_back", 0, None)
        assert town.registry.champions == {"churn": 1}
