"""Which peers the node turns away by address."""

from hypothesis import given
from hypothesis import strategies as st

from node.network.peers.ip_bans import IP_BAN_SECONDS, MAX_ADDRESSES, MAX_BANNED_PEERS, IpBans
from node.network.peers.ip_diversity import peers_to_prune, surplus_peers

CONNECTED = st.lists(st.tuples(st.uuids().map(str), st.sampled_from("abc")), max_size=30, unique_by=lambda one: one[0])


def test_an_address_is_shut_after_some_bans_and_opens_again() -> None:
    """One banned peer shuts nobody out; the third one does, until the bans are old."""
    bans = IpBans()
    for number in range(MAX_BANNED_PEERS):
        assert not bans.is_ip_banned("a", 10.0)
        bans.add_banned_peer("a", 10.0 + number)
    assert bans.is_ip_banned("a", 20.0)
    assert not bans.is_ip_banned("b", 20.0)
    assert not bans.is_ip_banned("a", 10.0 + IP_BAN_SECONDS)


def test_the_memory_of_addresses_is_bounded() -> None:
    """Whoever has many addresses pushes out the oldest ones, not the newest."""
    bans = IpBans()
    for number in range(2 * MAX_ADDRESSES):
        for _ in range(MAX_BANNED_PEERS):
            bans.add_banned_peer(str(number), float(number) / 1000)
    assert len(bans._bans) == MAX_ADDRESSES
    assert bans.is_ip_banned(str(2 * MAX_ADDRESSES - 1), 3.0)


def test_twenty_on_one_address_give_way_to_one_on_another() -> None:
    """The newest of the most crowded address goes, not the newest of all."""
    crowd = [(f"c{number}", "crowd") for number in range(20)]
    assert surplus_peers([*crowd, ("late", "else")], 20) == ["c19"]


@given(CONNECTED, st.integers(0, 40))
def test_only_what_exceeds_is_turned_away(connected: list[tuple[str, str]], most: int) -> None:
    """Exactly the limit stays, and no address keeps two more than another one that lost somebody."""
    away = surplus_peers(connected, most)
    staying = [address for peer, address in connected if peer not in away]
    assert len(staying) == min(most, len(connected))
    lost = {address for peer, address in connected if peer in away}
    assert all(staying.count(other) - staying.count(address) <= 1 for address in lost for other in staying)


def test_a_crowd_on_one_address_is_never_a_whole_mesh() -> None:
    """Thirteen grafts from one address leave those that the node has dialled, and one peer of each other address."""
    mesh = [*((f"c{number}", "crowd") for number in range(10)), ("d", "crowd"), ("e", "else"), ("f", "far")]
    away = peers_to_prune(mesh, {"d", "gone"}, 6, 3)
    assert len(away) == len(mesh) - 6
    assert not {"d", "e", "f"} & set(away)


def test_more_dialled_than_are_kept_are_pruned_like_others() -> None:
    """A mesh of dialled peers only shrinks all the same."""
    mesh = [(str(number), "a") for number in range(13)]
    assert len(peers_to_prune(mesh, {peer for peer, _ in mesh}, 6, 3)) == 7


def test_a_network_of_ipv6_is_one_address() -> None:
    """Whoever has one address of a /64 has all of them; a mapped IPv4 address is that address."""
    bans = IpBans()
    for number in range(MAX_BANNED_PEERS):
        bans.add_banned_peer(f"2001:db8::{number}", 0.0)
        bans.add_banned_peer("::ffff:192.0.2.1", 0.0)
    assert bans.is_ip_banned("2001:db8::ff", 1.0)
    assert not bans.is_ip_banned("2001:db8:0:1::1", 1.0)
    assert bans.is_ip_banned("192.0.2.1", 1.0)
    assert not bans.is_ip_banned("192.0.2.2", 1.0)
