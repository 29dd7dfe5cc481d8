"""What rollouts call revisions. A canary that is promoted keeps its name, so a name alone does not tell what is stable."""

from __future__ import annotations


def name_canary(rollout_id: int) -> str:
    """Name of a rollout's canary; it also salts the split, so that every rollout draws other users."""
    return f"canary-{rollout_id}"


def name_restored(rollout_id: int) -> str:
    """Name of the stable revision after a rollback that undid a promotion."""
    return f"restored-{rollout_id}"
