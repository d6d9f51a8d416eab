"""What the node's web servers on Hypercorn have in common: the status page, and the page of `swarm login --browser`."""

from __future__ import annotations

import logging

from hypercorn.config import Config as ServerConfig


def server_config(descriptor: int) -> ServerConfig:
    """Return Hypercorn's settings: the socket given, no access log, errors to our log, short times, small limits."""
    config = ServerConfig()
    config.bind = [f"fd://{descriptor}"]
    config.accesslog = None
    errors = logging.getLogger("hypercorn.error")
    errors.setLevel(logging.WARNING)
    config.errorlog = errors
    config.include_server_header = False
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 1.0
    config.read_timeout = 10
    config.h11_max_incomplete_size = 16 << 10
    return config
