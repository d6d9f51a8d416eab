"""The canonical form of a data set's records and the digest over it: what a manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from node.seams import Question
from protocols.identifiers import Digest


def records_digest(records: Iterable[Question]) -> Digest:
    """Return the 32-byte BLAKE2b digest over the records in order, each as a line of JSON: [question, answer]."""
    digest = hashlib.blake2b(digest_size=32)
    for record in records:
        digest.update(msgspec.json.encode([record.text, record.answer]) + b"\n")
    return digest.digest()
