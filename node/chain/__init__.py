"""The coordinator contract: RPC, block follower, outbox, bindings."""
