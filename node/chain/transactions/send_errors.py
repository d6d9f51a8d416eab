"""What endpoints say when they do not take a transaction: words differ from server to server."""

from __future__ import annotations

from node.chain.rpc.client import RpcError

NONCE_LOW = ("nonce too low", "old nonce", "already been used", "nonce is too low")
KNOWN = ("already known", "already imported", "known transaction", "transaction already in")
UNDERPRICED = ("underpriced", "replacement fee too low", "max fee per gas less than", "gas price too low")
UNFUNDED = ("insufficient funds", "insufficient balance", "doesn't have enough funds")


def says(error: RpcError, phrases: tuple[str, ...]) -> bool:
    """Tell whether a refusal is of a kind."""
    text = error.message.lower()
    return any(phrase in text for phrase in phrases)
