"""Log throttle of the library: warnings only, one event per peer (or per line of its code) and minute."""

from __future__ import annotations

import logging
import re
import time

import structlog
from cachetools import FIFOCache

log = structlog.get_logger()

SILENCE_SECONDS = 60.0
_REMEMBERED = 1024
_PEER = re.compile(r"\b(?:16Uiu2|12D3|Qm)[1-9A-HJ-NP-Za-km-z]{20,60}\b")


class LogThrottle(logging.Handler):
    """Passes the library's warnings on as `libp2p.warning` events, with the number left out since the last one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: FIFOCache[str, tuple[float, int]] = FIFOCache(_REMEMBERED)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record, or count it where its peer (or line) was logged within the last minute."""
        text = record.getMessage()[:300]
        peer = _PEER.search(text)
        about = peer.group() if peer else f"{record.name}:{record.lineno}"
        now = time.monotonic()
        last, hidden = self._last.get(about, (-SILENCE_SECONDS, 0))
        if now - last < SILENCE_SECONDS:
            self._last[about] = (last, hidden + 1)
            return
        self._last[about] = (now, 0)
        log.warning("libp2p.warning", source=record.name, text=" ".join(text.split()), hidden=hidden)


def connection_log() -> logging.Logger:
    """Return a logger for library code that logs to the root logger, which would install a handler on stderr."""
    return logging.getLogger("libp2p.network.connection")


def install_log_throttle() -> None:
    """Route everything that the library logs through `LogThrottle`."""
    for name in ("libp2p", "multiaddr"):
        logger = logging.getLogger(name)
        logger.handlers = [LogThrottle()]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
