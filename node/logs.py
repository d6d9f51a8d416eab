"""Logs: one JSON object per line for programs, plain text on a terminal.

Keys: `ts` (ISO 8601, UTC), `level`, `event` (a stable dotted name), `round` and `stage` once they are known, then the
event's own keys. Library messages from the standard library's logging appear in the same form, from WARNING on.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"(^|[_\-.])(secret|password|passphrase|passwd|mnemonic|token|authorization|cookie|salt|credentials?|"
    r"api_?key|private_?key)s?($|[_\-.])",
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?P<scheme>https?|wss?)://(?P<user>[^\s/@]+@)?(?P<host>[^\s/?#\"']+)(?P<rest>[^\s\"']*)")
_KEY_IN_PATH = re.compile(r"(?<=/)[A-Za-z0-9_\-]{20,}")


class Settings(Protocol):
    """The keys of section [log]."""

    @property
    def format(self) -> str:
        """Return "auto", "json" or "text"."""

    @property
    def level(self) -> str:
        """Return the name of the lowest level that is logged."""


# --- round and stage --------------------------------------------------------------------------------------------------

_where: ContextVar[dict[str, int]] = ContextVar("where")
_where.set({})


def bind_stage(round_number: int, stage: int) -> None:
    """Set round and stage for every later line, in every task of this context and its children.

    The variable holds one dictionary that is updated in place, so tasks that started earlier see the new values too.
    """
    _where.get({}).update(round=round_number, stage=stage)


def own_stage() -> None:
    """Give this task and its children their own round and stage: several nodes in one process."""
    _where.set({})


# --- processors -------------------------------------------------------------------------------------------------------

Event = MutableMapping[str, Any]


def add_stage(_logger: object, _method: str, event: Event) -> Event:
    """Add `round` and `stage` unless the line has its own."""
    for key, value in _where.get({}).items():
        event.setdefault(key, value)
    return event


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Redact possible secrets: values under suspicious keys, credentials and API keys in URLs."""
    for key in event:
        event[key] = REDACTED if _SECRET_KEY.search(key) else redacted(event[key])
    return event


def redacted(value: object) -> object:
    """Return a value with every secret in it redacted, at any depth."""
    match value:
        case str():
            return _URL.sub(_safe_url, value) if "://" in value else value
        case Mapping():
            return {k: REDACTED if _SECRET_KEY.search(str(k)) else redacted(v) for k, v in value.items()}
        case list() | tuple():
            return [redacted(item) for item in value]
        case BaseException():
            return redacted(f"{type(value).__name__}: {value}")
        case _:
            return value


def _safe_url(found: re.Match[str]) -> str:
    """Return a URL without user, query, fragment, and long path segments, where RPC providers put their keys."""
    path = re.split(r"[?#]", found["rest"], maxsplit=1)[0]
    return f"{found['scheme']}://{found['host']}{_KEY_IN_PATH.sub('…', path)}"


def ordered(_logger: object, _method: str, event: Event) -> Event:
    """Put ts, level, event, round and stage first."""
    first = {key: event.pop(key) for key in ("ts", "level", "event", "round", "stage") if key in event}
    return {**first, **event}


# --- set-up -----------------------------------------------------------------------------------------------------------


class Output:
    """A stream for log lines that may fail without stopping the node.

    Once a reader (`swarm run | head`) or a terminal has gone away, later lines are discarded. While the disk is full,
    lines are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or discard it if that is not possible."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError) or error.errno == errno.EIO:
            self._stream = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for this process; `stream` defaults to stdout. May be called again."""
    target = sys.stdout if stream is None else stream
    text = settings.format == "text" or (settings.format == "auto" and target.isatty())
    output = Output(target)
    structlog.configure(
        processors=[*_shared(), *_final(text, colours=target.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(file=output),  # type: ignore[arg-type]  # a TextIO in all it uses
        cache_logger_on_first_use=False,
    )
    _route_libraries(output, text, colours=target.isatty())


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        add_stage,
    ]


def _final(text: bool, colours: bool) -> list[Any]:
    if text:
        renderer = structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="ts", pad_event_to=22, sort_keys=False)
        return [structlog.processors.format_exc_info, redact, ordered, renderer]
    return [
        structlog.processors.format_exc_info,
        redact,
        ordered,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]


def _route_libraries(output: Output, text: bool, colours: bool) -> None:
    """Route the standard library's logging through the same processors, from WARNING on, as `library.log`."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), _as_library],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_final(text, colours)],
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _as_library(_logger: object, _method: str, event: Event) -> Event:
    """Give a library's line a stable event name; its text goes under `message`."""
    record: logging.LogRecord = event["_record"]
    event["message"] = event["event"]
    event["event"] = "library.log"
    event["library"] = record.name
    return event
