"""Whom this node knows, dials, limits and bans."""
