"""Which controller acts: a lease in the control database, with a token that grows whenever it changes hands.

A holder renews its lease while it works. Whoever finds it expired takes it and gets a greater token; what the one before
still tries to record is refused, because every record is made in a session that compares the token (Kleppmann, *How to do
distributed locking*, 2016). Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from features.control_database import open_session
from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import LeaseLost
from monitoring.rollout.tables import SCHEMA, LeaseRow

CONTROLLER: Final = "controller"
"""Name of the lease under which rollouts are stepped."""
US_PER_S: Final = 1_000_000


@dataclass(frozen=True)
class Lease:
    """The right to act until ``expires_at_us`` (UTC microseconds), unless it is renewed."""

    name: str
    holder: str
    token: int
    expires_at_us: int


@dataclass(frozen=True)
class Claim:
    """What a process wants to hold: a lease by name, under a name of its own, for so long at a time."""

    holder: str
    ttl_s: float = 10.0
    name: str = CONTROLLER
    timeout_s: float = 3.0
    """How long the control database may take."""


def take(workspace: Workspace, claim: Claim, held: Lease | None, now_us: int) -> Lease | None:
    """Take the lease if it is free or expired, or renew the one that is held.

    Returns:
        The lease; None where another holder has it.
    Raises:
        StoreUnavailable: the control database does not answer.
    """
    expires_at_us = now_us + round(claim.ttl_s * US_PER_S)
    with open_session(workspace, SCHEMA, write=True, timeout_s=claim.timeout_s) as session:
        row = session.get(LeaseRow, claim.name)
        if row is None:
            row = LeaseRow(name=claim.name, holder="", token=0, expires_at_us=now_us)
            session.add(row)
        ours = held is not None and (row.holder, row.token) == (claim.holder, held.token)
        if not ours and row.expires_at_us > now_us:
            return None
        # Also our own lease, once it has expired, comes back with a new token: what was begun under the old one is void.
        if not ours or row.expires_at_us <= now_us:
            row.token += 1
        row.holder, row.expires_at_us = claim.holder, expires_at_us
        lease = Lease(claim.name, claim.holder, row.token, expires_at_us)
        session.commit()
        return lease


def release(workspace: Workspace, lease: Lease, now_us: int, *, timeout_s: float = 3.0) -> None:
    """Let others have it at once; does nothing if it is no longer held.

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    with open_session(workspace, SCHEMA, write=True, timeout_s=timeout_s) as session:
        row = session.get(LeaseRow, lease.name)
        if row is not None and (row.holder, row.token) == (lease.holder, lease.token):
            row.expires_at_us = min(row.expires_at_us, now_us)
            session.commit()


def read_lease(workspace: Workspace, name: str = CONTROLLER) -> Lease | None:
    """Who holds it or held it last; None where nobody ever did."""
    with open_session(workspace, SCHEMA) as session:
        row = session.get(LeaseRow, name)
        return None if row is None else Lease(row.name, row.holder, row.token, row.expires_at_us)


@contextmanager
def fenced(workspace: Workspace, lease: Lease, now_us: int, *, timeout_s: float = 3.0) -> Iterator[Session]:
    """A writing session that opens only while the lease is held.

    Raises:
        LeaseLost: it has expired or another holder has it.
        StoreUnavailable: the control database does not answer.
    """
    with open_session(workspace, SCHEMA, write=True, timeout_s=timeout_s) as session:
        row = session.get(LeaseRow, lease.name)
        if row is None or (row.holder, row.token) != (lease.holder, lease.token) or row.expires_at_us <= now_us:
            raise LeaseLost(
                explain("lease is lost", which=f"{lease.name} of {lease.holder}", expected=f"token {lease.token}, not expired",
                        got="no lease" if row is None else f"token {row.token} of {row.holder}",
                        next_step="stop acting and take it again")
            )  # fmt: skip
        yield session
