"""The transaction manager: one owner of a key's nonces, a durable queue."""
