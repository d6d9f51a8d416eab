from pathlib import Path

import pytest

from node.network.peers.addresses import BadAddress, seen_from, split_address
from node.network.peers.peer_store import (
    BAN_SECONDS,
    MAX_ADDRESSES,
    MAX_PEERS,
    PENALTY_HALF_LIFE,
    PENALTY_LIMIT,
    PeerStore,
)

PEER = "16Uiu2HAmEWQnHq2jLKJypwVnVoQeFCULuyop6atvq2eWjYSUjzNi"


def test_the_book_survives_a_restart(tmp_path: Path) -> None:
    """What was saved is read again; nothing but the store stays in the directory."""
    path = tmp_path / "data" / "peers.json"
    store = PeerStore(path)
    store.add_addresses("a", ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/2"])
    store.mark_connected("a", 100.0, "/ip4/10.0.0.2/tcp/2")
    store.save()
    assert PeerStore(path).dialable(200.0) == [("a", ("/ip4/10.0.0.2/tcp/2", "/ip4/10.0.0.1/tcp/1"))]
    assert [each.name for each in path.parent.iterdir()] == ["peers.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 5}', b"\xff\xff"])
def test_a_broken_book_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """An unreadable store is kept under another name and a new one begun."""
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    assert len(PeerStore(path)) == 0
    assert (tmp_path / "peers.json.bad").read_bytes() == content


def test_an_unwritable_book_costs_nothing_else(tmp_path: Path) -> None:
    """A store that can't be written is tried again at the next save."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    store = PeerStore(blocker / "peers.json")
    store.mark_connected("a", 1.0)
    store.save()
    blocker.unlink()
    store.save()
    assert len(PeerStore(tmp_path / "file" / "peers.json")) == 1


def test_the_book_is_bounded() -> None:
    """Peers that were never connected go first, addresses of one peer are few."""
    store = PeerStore(None)
    store.mark_connected("friend", 5.0, "/ip4/10.0.0.1/tcp/1")
    for number in range(MAX_PEERS + 50):
        store.add_addresses(f"p{number}", [f"/ip4/10.0.0.1/tcp/{port}" for port in range(1, 9)])
    assert len(store) == MAX_PEERS
    assert store.get("friend").seen == 5.0
    assert len(store.get(f"p{MAX_PEERS + 49}").addresses) == MAX_ADDRESSES


def test_faults_add_up_to_a_ban_and_fade() -> None:
    """Penalties at once reach the limit; the same ones far apart do not; a ban ends by itself."""
    store = PeerStore(None)
    step = PENALTY_LIMIT / 2
    assert [store.penalise("a", step, 0.0), store.penalise("a", step, 1.0)] == [False, False]
    assert store.penalise("a", step, 2.0)
    assert store.is_banned("a", 3.0)
    assert not store.is_banned("a", 2.0 + BAN_SECONDS)
    apart = [store.penalise("b", step, 20 * PENALTY_HALF_LIFE * number) for number in range(9)]
    assert not any(apart)


def test_the_banned_are_not_dialled() -> None:
    """A peer that is shut out is no candidate until its time is over."""
    store = PeerStore(None)
    store.add_addresses("a", ["/ip4/10.0.0.1/tcp/1"])
    store.penalise("a", PENALTY_LIMIT, 0.0)
    assert store.dialable(1.0) == []
    assert len(store.dialable(1.0 + BAN_SECONDS)) == 1


def test_addresses_are_taken_apart() -> None:
    """Transport part and peer id of a TCP address with a peer id."""
    assert split_address(f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}") == ("/ip4/10.0.0.1/tcp/4001", PEER)
    assert split_address(f"/dns4/boot.example.org/tcp/4001/p2p/{PEER}")[0] == "/dns4/boot.example.org/tcp/4001"


@pytest.mark.parametrize(
    "text",
    ["", "hello", "/ip4/10.0.0.1/tcp/1", f"/ip4/10.0.0.1/udp/1/p2p/{PEER}", f"/ip4/10.0.0.1/tcp/0/p2p/{PEER}",
     "/ip4/10.0.0.1/tcp/1/p2p/zzz", f"/ip4/999.0.0.1/tcp/1/p2p/{PEER}", f"/ip4/1.1.1.1/tcp/1/p2p/{PEER}" + "/" * 300,
     f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}"],
)  # fmt: skip
def test_what_can_not_be_dialled_is_refused(text: str) -> None:
    """Anything but one TCP address with one peer id is a `BadAddress`."""
    with pytest.raises(BadAddress):
        split_address(text)


def test_every_interface_becomes_the_one_that_was_seen() -> None:
    """0.0.0.0 is replaced by the IP under which the peer was seen; a real address stays."""
    assert seen_from("/ip4/0.0.0.0/tcp/38331", "192.0.2.7") == "/ip4/192.0.2.7/tcp/38331"
    assert seen_from("/ip6/::/tcp/38331", "2001:db8::1") == "/ip6/2001:db8::1/tcp/38331"
    assert seen_from("/ip4/10.0.0.1/tcp/1", "192.0.2.7") == "/ip4/10.0.0.1/tcp/1"


def test_a_ban_that_is_over_keeps_nobody_in_the_book() -> None:
    """A thousand banned names, long forgiven, do not push out an honest peer that was just connected."""
    store = PeerStore(None)
    for number in range(MAX_PEERS - 1):
        store.penalise(f"bad{number}", PENALTY_LIMIT, 0.0)
    for number in range(2):
        store.mark_connected(f"honest{number}", 10 * BAN_SECONDS + number, "/ip4/1.1.1.1/tcp/1")
    assert store.get("honest0").seen
    assert not store.get("bad0").banned_until
