"""The partition hash is a contract with every other client of the log, so its values are pinned."""

from __future__ import annotations

import pyarrow as pa

from features.partitions import PARTITION_HASH, partition_of


def test_partitions_are_the_published_crc32_modulo_their_number() -> None:
    # Check values of CRC-32/ISO-HDLC: "123456789" is 0xCBF43926, "" is 0, "a" is 0xE8B7BE43, "The quick brown fox jumps
    # over the lazy dog" is 0x414FA339. Modulo 8: 6, 0, 3, 1; modulo 10: 3421780262, 0, 3904355907, 1095738169.
    ids = ["123456789", "", "a", "The quick brown fox jumps over the lazy dog"]
    assert PARTITION_HASH == "crc32"
    assert partition_of(ids, 8).tolist() == [6, 0, 3, 1]
    assert partition_of(pa.array(ids), 10).tolist() == [2, 0, 7, 9]


def test_ids_are_hashed_as_utf8_and_repeats_and_chunks_do_not_matter() -> None:
    chunked = pa.chunked_array([["é", "a"], ["é"]])
    # CRC-32 of é's UTF-8 bytes C3 A9, bit by bit with the polynomial 0xEDB88320, is 235179326; of its Latin-1 byte E9 it
    # would be 198489425. Modulo 1000: 326, not 425.
    assert partition_of(chunked, 1_000).tolist() == [326, 907, 326]


def test_no_ids_give_no_partitions() -> None:
    assert partition_of([], 4).tolist() == []
