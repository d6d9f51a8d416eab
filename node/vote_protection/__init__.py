"""The vote protection: what this identity ever signed, kept apart from everything else, exported and imported."""

from node.vote_protection.guard import VoteProtection
from node.vote_protection.interchange import SignedHistory, SignedRecord, decode_history, encode_history

__all__ = ["SignedHistory", "SignedRecord", "VoteProtection", "decode_history", "encode_history"]
