"""The node key."""
