"""Where a workspace keeps its files: the one place that knows the names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """A folder that holds one product's log, tables, stores, runs and models.

    Attributes:
        root: the folder.
        control_url: SQLAlchemy URL of the control database, without a password; empty for the SQLite file in the folder.
    """

    root: Path
    control_url: str = ""

    def events(self, entity: str) -> Path:
        """Delta table of one entity type's event log, partitioned by region and ingest_day."""
        return self.root / "events" / entity

    def live_log(self, entity: str) -> Path:
        """Folder of the log files in which one entity type's events arrive before they are in the Delta table."""
        return self.root / "live" / entity

    def stream_status(self, view_key: str) -> Path:
        """Folder with one JSON file a worker of the view's stream: how far it is, what it has refused."""
        return self.root / "stream" / view_key

    @property
    def dead_letters(self) -> Path:
        """Delta table of rows that could not become events."""
        return self.root / "dead_letters"

    def profile(self, name: str) -> Path:
        """Delta table of one profile."""
        return self.root / "profiles" / name

    def online(self, view_key: str) -> Path:
        """Folder of one view version's LMDB environments, one a log partition."""
        return self.root / "online" / view_key

    def runs(self) -> Path:
        """Folder with one folder a pipeline run; each holds ``run.json``."""
        return self.root / "runs"

    def model(self, name: str, version: int) -> Path:
        """Folder of one registered model version: SavedModel, ``model.json``, report."""
        return self.root / "models" / name / str(version)

    @property
    def deletions(self) -> Path:
        """Folder with one JSON document a deletion, and the key of the hashes in them."""
        return self.root / "deletions"

    def snapshots(self, view_key: str) -> Path:
        """Folder with one file a log partition: a view's states at the position before which events were dropped."""
        return self.root / "snapshots" / view_key

    def predictions(self, model: str) -> Path:
        """Folder of the rows that a model's servers have answered with, in segment files."""
        return self.root / "predictions" / model

    def served_labels(self, model: str) -> Path:
        """Delta table of what became of a model's predictions, once that was known."""
        return self.root / "labels" / model

    def audiences(self, model: str) -> Path:
        """Delta table of who is in the audiences of a model's campaigns, and why."""
        return self.root / "audiences" / model

    def services(self) -> Path:
        """Folder of the local data plane: one JSON file a service, its servers' logs, and its lock."""
        return self.root / "services"

    def drift_windows(self) -> Path:
        """Folder of the event windows that a drift detector has open, or has closed and not yet forgotten."""
        return self.root / "monitoring" / "windows"

    def drift_verdicts(self) -> Path:
        """Folder of one JSON file a window that was judged."""
        return self.root / "monitoring" / "drift"

    def scrape_targets(self) -> Path:
        """Folder of one JSON file a process that exports metrics: where it listens, as Prometheus' file_sd reads it."""
        return self.root / "monitoring" / "targets"

    def prometheus(self) -> Path:
        """Folder of the Prometheus and the Alertmanager that ``plumb up`` starts: their configuration, data and logs."""
        return self.root / "monitoring" / "prometheus"

    @property
    def control_database(self) -> Path:
        """SQLite file with versions and, later, rollouts, verdicts and audit; unused where ``control_url`` names another."""
        return self.root / "control.db"
