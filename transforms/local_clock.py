"""What a user's clock shows at ``now``, and when it is next put forward or back: part of the graph, from an IANA zone.

Zones are found by a fingerprint of their name instead of a table, so that the graph stays one of plain operations which every
loader restores. A name that the database does not know has the fingerprint of none, and counts as UTC.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.layout import DAY_S, US_PER_S, WEEK_S
from features.zones import BEGINNING, CLOCK_HORIZON_S, UTC, load_zones

_BUCKETS: Final = 1 << 62
_MONDAY_S: Final = 3 * DAY_S
"""1970-01-01 was a Thursday: three days after a Monday."""
_ZONE_SHIFT: Final = 40
"""An instant within 2**40 seconds of 1970 and a zone's number above it make one ascending integer."""


def read_clock(zone: tf.Tensor, now_us: tf.Tensor) -> tf.Tensor:
    """float32 (n, 3), ``zones.CLOCK_FEATURES`` of zones (n,) at ``now`` int64 (n,), UTC microseconds.

    All are whole numbers of seconds below 2**24, which a float32 holds exactly.
    """
    fingerprint, number, entry_key, since_s, offset_s = _constants()
    now_s = now_us // US_PER_S
    place = tf.searchsorted(tf.constant(fingerprint), _fingerprint(zone))
    place = tf.minimum(tf.cast(place, tf.int64), len(fingerprint) - 1)
    known = tf.equal(tf.gather(tf.constant(fingerprint), place), _fingerprint(zone))
    zone_number = tf.where(known, tf.gather(tf.constant(number), place), load_zones().names.index(UTC))
    at = tf.bitwise.left_shift(zone_number, _ZONE_SHIFT) + tf.clip_by_value(now_s, 0, (1 << _ZONE_SHIFT) - 1)
    held = tf.cast(tf.searchsorted(tf.constant(entry_key), at, side="right"), tf.int64) - 1
    offset, next_offset = tf.gather(tf.constant(offset_s), held), tf.gather(tf.constant(offset_s), held + 1)
    wait_s = tf.gather(tf.constant(since_s), held + 1) - now_s
    # The entry after a zone's last one is the first of the next zone, which begins before every instant.
    near = (wait_s > 0) & (wait_s <= CLOCK_HORIZON_S)
    local_week_s = tf.math.floormod(now_s + offset + _MONDAY_S, WEEK_S)
    change_in_s = tf.where(near, wait_s, CLOCK_HORIZON_S)
    change_s = tf.where(near, next_offset - offset, tf.zeros_like(offset))
    return tf.cast(tf.stack([local_week_s, change_in_s, change_s], axis=1), tf.float32)


def _fingerprint(names: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(names, _BUCKETS)


def _constants() -> tuple[NDArray[np.int64], ...]:
    """Sorted fingerprints of all names and their zones' numbers; then, of all entries of all zones, ascending keys, instants
    and offsets, with one entry more at the end."""
    table = load_zones()
    with tf.init_scope():
        fingerprints = _fingerprint(tf.constant(table.names)).numpy()
    order = np.argsort(fingerprints)
    of_entry = np.repeat(np.arange(len(table.names)), np.diff(table.start))
    key = (of_entry << _ZONE_SHIFT) + np.maximum(table.since_s, 0)
    return (
        fingerprints[order], order.astype(np.int64), key,
        np.append(np.maximum(table.since_s, BEGINNING // 2), BEGINNING // 2), np.append(table.offset_s, 0),
    )  # fmt: skip
