"""The process's settings: the only place that reads the environment.

Read once at the entry and passed down as one frozen object; nothing below the command line looks at the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from features.errors import explain
from features.workspace import Workspace
from plumb.errors import SettingsError

PREFIX = "PLUMB_"
WORKSPACE_KEY = "PLUMB_WORKSPACE"
STORE_KEY = "PLUMB_STORE"
CONTROL_DATABASE_KEY = "PLUMB_CONTROL_DATABASE"
KEYS = (WORKSPACE_KEY, STORE_KEY, CONTROL_DATABASE_KEY)
DEFAULT_WORKSPACE = "workspace"
CONTROL_DATABASES = ("postgresql", "postgresql+psycopg", "sqlite")

# oneDNN picks its kernels by the shape of a batch, so the same row can differ in its last bits between batches; training
# and serving must not. The value is forced: a run with the other kernels would fail the parity test for no visible reason.
FORCED = {"TF_ENABLE_ONEDNN_OPTS": "0"}
# TensorFlow's C++ log (cpu features, missing CUDA) tells an operator nothing. Only a default, so that it can be turned on.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}


@dataclass(frozen=True)
class Settings:
    """What a ``plumb`` process was told from outside."""

    workspace_root: Path
    """Folder that holds the event log, stores, runs and models; made by the first command that writes."""
    store: str | None = None
    """Address of the online store, which may hold a password; None stands for the workspace's own LMDB folders."""
    control_database: str = ""
    """URL of the control database, without a password; empty for the SQLite file in the workspace."""

    @property
    def workspace(self) -> Workspace:
        """The names of everything inside that folder."""
        return Workspace(self.workspace_root, self.control_database)


def read_settings(
    environment: Mapping[str, str], *, workspace: Path | None = None, control_database: str | None = None
) -> Settings:
    """Build the settings from the environment and the global options; an option wins over its variable.

    Args:
        environment: usually ``os.environ``; only keys that start with ``PLUMB_`` are looked at.
        workspace: value of ``--workspace``, None where it was not given.
        control_database: value of ``--control-database``, None where it was not given.
    Raises:
        SettingsError: a ``PLUMB_`` key is not one of ours (most often a misspelling), is empty, or cannot be used.
    """
    unknown = sorted(key for key in environment if key.startswith(PREFIX) and key not in KEYS)
    if unknown:
        raise SettingsError(
            explain(
                "unknown setting",
                which=f"environment variable {unknown[0]}",
                expected=" or ".join(KEYS),
                got=", ".join(unknown),
                next_step="unset it or correct its name",
            )
        )
    named = environment.get(WORKSPACE_KEY, DEFAULT_WORKSPACE)
    if workspace is None and not named:
        raise SettingsError(
            explain(
                "empty setting",
                which=WORKSPACE_KEY,
                expected="a folder",
                got="''",
                next_step="unset it or name a folder",
            )
        )
    root = workspace if workspace is not None else Path(named)
    if root.exists() and not root.is_dir():
        raise SettingsError(
            explain(
                "workspace is not a folder",
                which=str(root),
                expected="a folder or a path where one can be made",
                got="a file",
                next_step="pass another --workspace",
            )
        )
    url = environment.get(CONTROL_DATABASE_KEY, "") if control_database is None else control_database
    check_control_database(url)
    return Settings(workspace_root=root, store=environment.get(STORE_KEY) or None, control_database=url)


def check_control_database(url: str) -> None:
    """Raise ``SettingsError`` unless it is empty or the URL of a database that we can use.

    The URL travels to every pipeline step and into run records, so it must not hold a password; PostgreSQL's client takes
    that from its own variables and files.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        shown = url.replace(f":{parts.password}@", ":***@")
        raise SettingsError(
            explain("control database has a password in its URL", which=shown, expected="a URL without one",
                    got="a password", next_step="put it into PGPASSFILE or PGPASSWORD, which PostgreSQL's client reads")
        )  # fmt: skip
    usable = parts.path.startswith("/") and parts.path != "/" if parts.scheme == "sqlite" else bool(parts.hostname)
    if url and not (parts.scheme in CONTROL_DATABASES and usable):
        raise SettingsError(
            explain("control database cannot be used", which=url, got=parts.scheme or "no scheme", next_step="correct the URL",
                    expected="postgresql://USER@HOST:PORT/DATABASE or sqlite:////PATH")
        )  # fmt: skip


def prepare_native_libraries(environment: MutableMapping[str, str]) -> None:
    """Set what TensorFlow reads from the environment while it loads; call before anything imports it.

    Child processes (pipeline steps, Beam workers) inherit it.
    """
    environment.update(FORCED)
    for key, value in QUIET.items():
        environment.setdefault(key, value)
