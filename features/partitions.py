"""Which log partition an entity belongs to: one named hash, the same in every client.

Clients differ in their default partitioners (librdkafka's CRC-32 is not Java's murmur2), so the hash is part of the
log's contract and its name is written into every log.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

PARTITION_HASH: Final = "crc32"
"""Name of the hash: CRC-32 (ISO 3309, as zlib has it) of the entity id's UTF-8 bytes."""


def partition_of(entity_ids: pa.Array | pa.ChunkedArray | Sequence[str], partitions: int) -> np.ndarray:
    """The log partition of each entity id.

    Args:
        entity_ids: (n,) strings, no nulls.
        partitions: how many partitions the log has.

    Returns:
        (n,) int32 in 0..partitions-1.

    Example:
        >>> partition_of(["123456789"], 8).tolist()  # 0xCBF43926, CRC-32's published check value, modulo 8
        [6]
    """
    if isinstance(entity_ids, pa.ChunkedArray):
        entity_ids = entity_ids.combine_chunks()
    ids = entity_ids if isinstance(entity_ids, pa.Array) else pa.array(entity_ids, pa.string())
    encoded = ids.dictionary_encode()
    texts = encoded.dictionary.cast(pa.binary()).to_pylist()
    hashes = np.fromiter(map(zlib.crc32, texts), np.int64, len(texts))
    result: np.ndarray = (hashes % partitions).astype(np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]
    return result
