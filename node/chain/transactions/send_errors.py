"""Classification of an endpoint's refusals of a transaction: wordings differ from server to server. Pure."""

from __future__ import annotations

from typing import Literal

SendError = Literal["already known", "nonce too low", "underpriced", "unfunded", "refused"]

PHRASES: dict[SendError, tuple[str, ...]] = {
    "already known": ("already known", "already imported", "known transaction", "transaction already in"),
    "nonce too low": ("nonce too low", "old nonce", "already been used", "nonce is too low"),
    "underpriced": ("underpriced", "replacement fee too low", "max fee per gas less than", "gas price too low"),
    "unfunded": ("insufficient funds", "insufficient balance", "doesn't have enough funds"),
}


def classify_send_error(message: str) -> SendError:
    """Return the kind of an endpoint's error message; "refused" for an unknown wording."""
    text = message.lower()
    return next((kind for kind, phrases in PHRASES.items() if any(phrase in text for phrase in phrases)), "refused")
