"""Fetching among peers that announce and do not serve."""

import errno
import os
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import msgspec
import trio

from node.machine.commands import FetchRollouts
from node.machine.inputs import RolloutsArrived, RolloutsRefused
from node.network.peers.request_backoff import BACKOFF, TOLERATED_TIMEOUTS
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.body_exchange import BodyExchange
from node.network.reqresp.fetcher import MAX_REQUESTS, BodyFetcher
from node.network.reqresp.streams import FRAME_SECONDS
from node.network.reqresp.upload_quota import UploadQuota
from node.ports.bodies import Verdict
from protocols.identifiers import Digest, body_digest
from protocols.manifest import Limits

GOOD = b"good"
SWARM = bytes(32)


class Shelf(dict[Digest, bytes]):
    """Bodies in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self[digest] = body


class Answers:
    """An exchange whose peers have one body, and none of the others after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.most, self._now = seconds, 0, 0

    async def ask(self, peer: str, digest: Digest, size: int) -> bytes | None:
        self._now += 1
        self.most = max(self.most, self._now)
        await trio.sleep(0.1 if digest == body_digest(GOOD) else self.seconds)
        self._now -= 1
        return GOOD if digest == body_digest(GOOD) else None


class Timed:
    """An exchange that notes when it had a body. The check runs in a thread, for which the clock does not wait."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.served = inner, 0.0

    async def ask(self, peer: str, digest: Digest, size: int) -> bytes | None:
        body: bytes | None = await self.inner.ask(peer, digest, size)
        if body is not None:
            self.served = trio.current_time()
        return body


def wanted(bodies: Sequence[bytes]) -> list[FetchRollouts]:
    return [FetchRollouts("0x" + "11" * 20, 1, 0, SWARM, body_digest(body), len(body)) for body in bodies]


async def seconds_until_good(answers: Any, commands: Sequence[FetchRollouts]) -> float:
    """Return the time after which the good body was here, to be checked; wait until it has arrived."""
    arrived, timed = trio.Event(), Timed(answers)

    async def report(happened: Any) -> None:
        if isinstance(happened, RolloutsArrived):
            arrived.set()

    fetcher = BodyFetcher(
        AnnouncementValidator(SWARM, Limits()),
        Shelf(),
        lambda peer, announcement, body: Verdict(reason="", groups=1),
        Limits().body,
    )
    for command in commands:
        fetcher.enqueue(command)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.run, timed, lambda: {"peer"}, report)
        await arrived.wait()
        nursery.cancel_scope.cancel()
    return timed.served - began


async def test_bodies_that_nobody_has_delay_no_other(autojump_clock: object) -> None:
    """A hundred bodies that cannot be had, asked for first, cost a good one less than a second."""
    nobodys = [bytes([number]) for number in range(100)]
    assert await seconds_until_good(Answers(0.05), wanted([*nobodys, GOOD])) < 1.0


async def test_no_more_requests_than_allowed_are_under_way(autojump_clock: object) -> None:
    """However many bodies are wanted, the requests at one time are bounded."""
    answers = Answers(0.05)
    await seconds_until_good(answers, wanted([bytes([number]) for number in range(100)] + [GOOD]))
    assert answers.most <= MAX_REQUESTS


class FullShelf(Shelf):
    """Bodies on a disk that is full."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_body_that_can_not_be_kept_counts_all_the_same(autojump_clock: object) -> None:
    """It was checked, so its peer may be voted for; the network goes on, and the fault is counted."""
    validator, heard = AnnouncementValidator(SWARM, Limits()), []
    fetcher = BodyFetcher(validator, FullShelf(), lambda *_: Verdict(reason="", groups=1, reward=0.5), Limits().body)
    both = trio.Event()

    async def report(happened: Any) -> None:
        heard.append(happened)
        if len(heard) == 2:
            both.set()

    for command in (*wanted([GOOD]), msgspec.structs.replace(wanted([GOOD])[0], stage=1)):
        fetcher.enqueue(command)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.run, Answers(0.05), lambda: {"peer"}, report)
        await both.wait()
        nursery.cancel_scope.cancel()
    assert {type(each) for each in heard} == {RolloutsArrived}
    assert (validator.counters["body-accepted"], validator.counters["body-not-kept"]) == (2, 2)


class Nobody:
    """An exchange whose peers all say that the body has another size."""

    async def ask(self, peer: str, digest: Digest, size: int) -> bytes | None:
        await trio.sleep(0.1)
        return None


async def test_a_false_size_is_held_against_who_announced_it(autojump_clock: object) -> None:
    """Once the body is here by another's announcement, it shows that this one lied, without asking any further."""
    shelf, refused = Shelf(), trio.Event()
    reported: list[RolloutsRefused] = []

    async def report(happened: Any) -> None:
        reported.append(happened)
        refused.set()

    fetcher = BodyFetcher(
        AnnouncementValidator(SWARM, Limits()),
        shelf,
        lambda peer, announcement, body: Verdict(reason="" if len(body) == announcement.size else "size"),
        Limits().body,
    )
    (truth,) = wanted([GOOD])
    fetcher.enqueue(msgspec.structs.replace(truth, size=len(GOOD) + 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.run, Nobody(), lambda: {"peer"}, report)
        await trio.sleep(1.0)
        shelf.put(truth.body, GOOD, 1)
        await refused.wait()
        nursery.cancel_scope.cancel()
    assert reported[0].reason == "size"


class Dripping:
    """A host whose only peer serves a body of 64 KiB, a byte a frame, each after six seconds."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.asked = 0

    def serve(self, protocol: str, handler: object) -> None:
        pass

    def report_fault(self, peer: str, reason: str) -> None:
        self.faults.append(reason)

    def request(self, peer: str, protocol: str) -> Any:
        self.asked += 1
        return Stream()


class Stream:
    """Its end of the stream."""

    def __init__(self) -> None:
        self._parts = [b"\x08", (1 << 16).to_bytes(8, "big")]
        self._drip = cycle([b"\x01", b"x"])

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def read(self, n: int) -> bytes:
        if self._parts:
            return self._parts.pop(0)
        await trio.sleep(3.0)
        return next(self._drip)


async def test_a_body_that_drips_in_is_given_up(autojump_clock: object) -> None:
    """A byte a frame keeps every deadline of a frame; the body as a whole has one too, and the peer is blamed."""
    host: Any = Dripping()
    exchange = BodyExchange(host, Shelf(), lambda reason: None, UploadQuota(1e9))
    began = trio.current_time()
    assert await exchange.ask("peer", bytes(32), 1 << 16) is None
    assert (host.faults, trio.current_time() - began) == (["body-timeout"], FRAME_SECONDS + 1.0)


async def test_who_has_a_body_of_another_size_is_not_to_blame(autojump_clock: object) -> None:
    """The announced size may be the lie: what an honest peer says of its body must not shut it out."""
    host: Any = Dripping()
    exchange = BodyExchange(host, Shelf(), lambda reason: None, UploadQuota(1e9))

    assert await exchange.ask("peer", body_digest(bytes(1 << 16)), (1 << 16) + 1) is None
    assert host.faults == []


async def test_who_drips_all_the_time_is_let_be_for_a_while(autojump_clock: object) -> None:
    """After several bodies that did not come in time, the peer is not asked until it has rested."""
    host: Any = Dripping()
    exchange = BodyExchange(host, Shelf(), lambda reason: None, UploadQuota(1e9))
    for _ in range(TOLERATED_TIMEOUTS + 2):
        assert await exchange.ask("peer", bytes(32), 1 << 16) is None
    assert host.asked == TOLERATED_TIMEOUTS + 1
    await trio.sleep(BACKOFF.first)
    assert await exchange.ask("peer", bytes(32), 1 << 16) is None
    assert host.asked == TOLERATED_TIMEOUTS + 2
