"""Which revision answers whom: pure functions.

A sticky split hashes ``service/salt/entity`` into 10,000 buckets; the canary has the lowest ``percent * 100``. So an entity
that is in the canary at 5 % is in it at 25 %, and a rollout with another salt draws other entities. The hash is BLAKE2b, whose
draws under two salts are independent by design; two CRCs of one entity differ by a constant.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from inference.plane.document import STICKY

BUCKETS: Final = 10_000
BUCKETS_A_PERCENT: Final = BUCKETS // 100


def bucket_of(service: str, salt: str, entity_id: str) -> int:
    """The entity's bucket, 0 to 9,999."""
    digest = hashlib.blake2b(f"{service}/{salt}/{entity_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % BUCKETS


@dataclass(frozen=True)
class Split:
    """How a service's traffic is divided.

    Attributes:
        service, salt: what a sticky split hashes with the entity.
        percent: share of the canary; 0 where there is none, or while it is not ready.
        mode: ``sticky`` or ``random``.
        chance: draws for the random mode.
    """

    service: str
    salt: str
    percent: int
    mode: str = STICKY
    chance: random.Random = field(default_factory=random.Random, compare=False)

    def takes(self, entity_id: str | None) -> bool:
        """Whether the canary answers for this entity. Who names nobody is of no share: the canary's only if all are."""
        if self.percent in (0, 100):
            return self.percent == 100
        if self.mode != STICKY:
            return self.chance.random() * 100 < self.percent
        return entity_id is not None and bucket_of(self.service, self.salt, entity_id) < self.percent * BUCKETS_A_PERCENT

    def divide(self, entity_ids: Sequence[str | None]) -> tuple[list[int], list[int]]:
        """Rows of a request for stable and for the canary. A random split draws once a request."""
        if self.percent in (0, 100) or self.mode != STICKY:
            rows = list(range(len(entity_ids)))
            return ([], rows) if self.takes(None) else (rows, [])
        stable: list[int] = []
        canary: list[int] = []
        for row, entity_id in enumerate(entity_ids):
            (canary if self.takes(entity_id) else stable).append(row)
        return stable, canary
