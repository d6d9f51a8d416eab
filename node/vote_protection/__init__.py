"""The vote protection: everything this identity ever signed, in its own file, with export and import."""

from node.vote_protection.guard import VoteProtection
from node.vote_protection.interchange import SignedHistory, SignedRecord, decode_history, encode_history

__all__ = ["SignedHistory", "SignedRecord", "VoteProtection", "decode_history", "encode_history"]
