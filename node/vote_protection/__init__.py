"""The vote protection: what this identity ever signed, kept apart from everything else, exported and imported."""

from node.vote_protection.guard import VoteProtection
from node.vote_protection.interchange import History, Signed, decode_history, encode_history

__all__ = ["History", "Signed", "VoteProtection", "decode_history", "encode_history"]
