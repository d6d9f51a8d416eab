"""The vote protection: everything this identity ever signed, in its own file, with export and import."""

from node.vote_protection.guard import VoteProtection, is_lost
from node.vote_protection.interchange import SignedHistory, SignedRecord, decode_history, encode_history

__all__ = ["SignedHistory", "SignedRecord", "VoteProtection", "decode_history", "encode_history", "is_lost"]
