"""The log lines."""

import errno
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio

from node.config import LogSettings
from node.logs import REDACTED, bind_stage, configure, own_stage, redacted
from node.machine.commands import RelayMessages
from node.machine.inputs import RolloutsAnnounced
from node.runtime.log_events import log_line
from protocols.signed_messages import MessageKind, MessageTopic, RelayedMessage, SignedReward


@pytest.fixture(autouse=True)
def undo() -> Iterator[None]:
    """Leave logging as it was for other tests."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(**settings), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_line_is_one_json_object_with_the_agreed_keys() -> None:
    """Not on a terminal: ts in UTC, level, event first; values of any type end up on the one line."""
    own_stage()
    stream = configured()
    structlog.get_logger().info("node.started", text="two\nlines", blob=object, n=1)
    (line,) = lines(stream)
    assert list(line)[:3] == ["ts", "level", "event"]
    assert line["ts"].endswith("Z")
    assert (line["level"], line["event"], line["text"], line["n"]) == ("info", "node.started", "two\nlines", 1)


async def test_round_and_stage_reach_tasks_that_started_earlier() -> None:
    """After `bind_stage` in one task, a task that was running before logs the new round too."""
    stream = configured()
    bound = trio.Event()

    async def service() -> None:
        await bound.wait()
        structlog.get_logger().info("service.works")

    async def node() -> None:
        own_stage()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service)
            await trio.lowlevel.checkpoint()
            bind_stage(7, 1)
            bound.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node)
    (line,) = lines(stream)
    assert (line["round"], line["stage"]) == (7, 1)


@pytest.mark.parametrize(
    "key", ["secret", "password", "private_key", "apiKey", "api_key", "session_token", "Authorization", "vote.salt"]
)
def test_values_under_telling_keys_are_blanked(key: str) -> None:
    """A secret's value never reaches the line, at the top or nested."""
    stream = configured()
    structlog.get_logger().warning("some.event", **{key: "hunter2", "nested": [{key: "hunter2"}]})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["nested"] == [{key: REDACTED}]


def test_what_only_resembles_a_secret_is_kept() -> None:
    """A tokenizer's digest, a count of tokens per second and a transaction's key are no secrets."""
    stream = configured()
    structlog.get_logger().info("some.event", tokenizer="abc", key="vote:1", monkeys=3)
    assert lines(stream)[0] | {"tokenizer": "abc", "key": "vote:1", "monkeys": 3} == lines(stream)[0]


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("wss://me:pw@rpc.example/v3/0123456789abcdef0123456789abcdef?key=1", "wss://rpc.example/v3/…"),
        ("cannot reach https://rpc.example/?apikey=xyz now", "cannot reach https://rpc.example/ now"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
    ],
)
def test_urls_lose_credentials(url: str, safe: str) -> None:
    """User, query and long path segments of a URL are dropped wherever the URL stands."""
    assert redacted(url) == safe
    assert redacted((OSError(url),)) == [f"OSError: {safe}"]


def test_an_exception_is_one_line_with_its_trace_redacted() -> None:
    """The trace is a string in the same object, credentials in it blanked."""
    stream = configured()
    try:
        int("wss://me:pw@rpc.example/ is away")
    except ValueError:
        structlog.get_logger().exception("node.failed")
    (line,) = lines(stream)
    assert "ValueError" in line["exception"]
    assert "me:pw" not in stream.getvalue()


def test_libraries_speak_from_warning_on_in_the_same_form() -> None:
    """A library's info is dropped; its warning and Python's own warnings are JSON lines called library.log."""
    stream = configured(level="debug")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("peer %s", "x")
    warnings.warn("old call", DeprecationWarning, stacklevel=1)
    found = lines(stream)
    assert {line["event"] for line in found} == {"library.log"}
    assert (found[0]["library"], found[0]["message"], found[0]["level"]) == ("some.library", "peer x", "warning")
    assert "chatter" not in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    """At level warning, info is silent."""
    stream = configured(level="warning")
    structlog.get_logger().info("quiet.event")
    structlog.get_logger().error("loud.event")
    assert [line["event"] for line in lines(stream)] == ["loud.event"]


def test_a_terminal_gets_text() -> None:
    """On a terminal, lines are for reading: no JSON, the event and its values in view."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure(LogSettings(), stream)
    structlog.get_logger().info("node.started", peers=3)
    text = stream.getvalue()
    assert "node.started" in text
    assert "peers" in text
    assert not text.lstrip().startswith("{")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EIO, "gone"), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("failing", ["write", "flush"])
def test_a_stream_that_fails_does_not_end_the_node(failing: str, error: OSError) -> None:
    """Logging goes on: into nothing where reader or terminal is gone, and to a full disk once it has room again."""

    class Failing(io.StringIO):
        fails = True

        def write(self, text: str) -> int:
            if self.fails and failing == "write":
                raise error
            return super().write(text)

        def flush(self) -> None:
            if self.fails and failing == "flush":
                raise error

    stream = Failing()
    configure(LogSettings(), stream)
    structlog.get_logger().info("node.started")
    logging.getLogger("some.library").warning("said")
    stream.fails = False
    structlog.get_logger().info("node.again")
    assert ("node.again" in stream.getvalue()) == (error.errno == errno.ENOSPC)


def test_signed_messages_are_told_by_name_only() -> None:
    """A line about what is brought says whose it is, one about what is carried which kind; neither has a signature."""
    message = SignedReward(7, 0, 250_000, b"s" * 65)
    bringing = log_line(
        RelayMessages(
            MessageTopic(MessageKind.REWARD, 7, 0), 7, 0, bytes(32), 0, (RelayedMessage("0x" + "a" * 40, message),)
        )
    )
    announced = log_line(RolloutsAnnounced("0x" + "a" * 40, 7, 0, bytes(32), 0, inline=False, attached=(message,)))

    assert bringing is not None
    assert bringing[2]["messages"] == ["0x" + "a" * 40]
    assert announced is not None
    assert announced[2]["attached"] == ["SignedReward"]
