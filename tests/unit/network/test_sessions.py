"""Announcements of peers with an RSA identity: whose they are, and what is not bound to the identity it names."""

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.rsa import RSAPublicKey
from msgspec.structs import replace

from node.identity import NodeKey
from node.identity.local_peer import LocalPeer, address_of_peer_id, local_peer
from node.identity.rsa import RsaIdentity
from node.machine.commands import PublishRollouts
from node.network.host import _key_pair
from node.network.libp2p_patches.replacements import bounded_rsa
from node.network.pubsub.announcer import sign_announcement
from node.network.pubsub.inbound_message import InboundMessage
from node.network.pubsub.validator import AnnouncementValidator
from node.ports.network import RoundWindow
from protocols.admission import Slot
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import ENVELOPE_OVERHEAD, Announcement, BoundAnnouncement, decode_envelope, encode
from tests.support.rsa_keys import stored

SWARM, SEED, LIMITS = bytes([7]) * 32, bytes([5]) * 32, Limits()
OURS = Domain(1, "0x" + "c0" * 20, b"s" * 32)
RL_SWARMS = replace(OURS, salt=bytes(32))
ALICE, BOB = NodeKey(bytes([1]) * 32), NodeKey(bytes([2]) * 32)
OLD = RsaIdentity(stored())
BOUND = local_peer(ALICE, OLD, OURS)


def announced(me: LocalPeer, body: bytes = b"body", limits: Limits = LIMITS) -> bytes:
    return sign_announcement(me, SWARM, limits, PublishRollouts(5, 0, SEED, body_digest(body), len(body)), body)


def validator_for(domain: Domain | None, *peers: str) -> AnnouncementValidator:
    validator = AnnouncementValidator(SWARM, LIMITS, domain)
    validator.move(RoundWindow(swarm=SWARM, round=5, stage=0, stages=1, seeds={5: SEED}, peers=frozenset(peers)))
    return validator


def validate(validator: AnnouncementValidator, data: bytes) -> str:
    result = validator.validate(InboundMessage(data=data, origin=None))
    return result.reason or result.acceptance.value


def test_on_our_contract_it_counts_as_its_session_under_its_old_id() -> None:
    """The registered node key announces; the network knows that peer by the RSA identity's id."""
    validator = validator_for(OURS, ALICE.address)
    assert validate(validator, announced(BOUND)) == "accept"
    assert validator.slots() == [Slot(ALICE.address, 5, 0, SEED)]
    assert validator.peer_id(ALICE.address) == OLD.peer_id


def test_on_rl_swarms_contract_it_counts_as_its_old_id() -> None:
    """The registered peer id's stand-in announces; the session key without a statement is nobody there."""
    me = local_peer(ALICE, OLD, RL_SWARMS)
    validator = validator_for(RL_SWARMS, me.address)
    assert me.address == address_of_peer_id(OLD.peer_id) != ALICE.address
    assert validate(validator, announced(local_peer(ALICE, None, RL_SWARMS))) == "unregistered"
    assert validate(validator, announced(me)) == "accept"
    assert (validator.slots()[0].peer, validator.peer_id(me.address)) == (me.address, OLD.peer_id)
    assert validate(validator, announced(me, b"other")) == "equivocation"


@pytest.mark.parametrize("domain", [OURS, RL_SWARMS])
def test_what_is_not_bound_to_the_identity_it_names_is_dropped(domain: Domain) -> None:
    """Another key's signature, another chain, contract or deployment, somebody else's session: counted as "session"."""
    other = RsaIdentity(stored())
    true = OLD.bind(domain, ALICE.address)
    false = [
        replace(true, signature=other.bind(domain, ALICE.address).signature),
        replace(true, public_key=b"\x08\x00"),
        OLD.bind(replace(domain, chain_id=2), ALICE.address),
        OLD.bind(replace(domain, contract="0x" + "c1" * 20), ALICE.address),
        OLD.bind(replace(domain, salt=b"t" * 32), ALICE.address),
        OLD.bind(domain, BOB.address),
    ]
    me = local_peer(ALICE, OLD, domain)
    validator = validator_for(domain, ALICE.address, me.address)
    assert [validate(validator, announced(me._replace(statement=each))) for each in false] == ["session"] * len(false)
    assert (dict(validator.counters), validator.slots()) == ({"session": len(false)}, [])
    assert validate(validator, announced(me)) == "accept"


def test_nobody_takes_an_announcement_for_his_identity() -> None:
    """The statement stands under the session key's signature: with another one in its place it is not that key's."""
    mallory = RsaIdentity(stored())
    me = local_peer(ALICE, OLD, RL_SWARMS)
    envelope, announcement = decode_envelope(announced(me), LIMITS.announcement)
    assert isinstance(announcement, BoundAnnouncement)
    stolen = encode(replace(announcement, session=mallory.bind(RL_SWARMS, ALICE.address)))
    validator = validator_for(RL_SWARMS, me.address, address_of_peer_id(mallory.peer_id))
    assert validate(validator, encode(replace(envelope, payload=stolen))) == "session"


def test_without_a_deployment_nothing_is_bound() -> None:
    """Who does not know for which deployment a session would speak does not take it for anybody's."""
    assert validate(validator_for(None, ALICE.address), announced(BOUND)) == "session"


def test_other_peers_announcements_are_what_they_were() -> None:
    """A peer of a node key sends ten fields, as before there were statements; only a bound one sends eleven."""
    plain, announcement = decode_envelope(announced(local_peer(ALICE, None, OURS)), LIMITS.announcement)
    assert type(announcement) is Announcement
    assert plain.payload[0] == 0x9A
    bound, announcement = decode_envelope(announced(BOUND), LIMITS.announcement)
    assert type(announcement) is BoundAnnouncement
    assert bound.payload == encode(announcement)
    assert len(bound.payload) - len(plain.payload) == len(encode(announcement.session)) < 600


@given(st.integers(1, 3_000))
def test_a_bound_announcement_fits(size: int) -> None:
    """The statement leaves less room for the body inside; the whole stays within the limit."""
    limits = Limits(announcement=2_048, inline=2_000)
    _, announcement = decode_envelope(announced(BOUND, bytes(size), limits), limits.announcement)
    assert BOUND.statement is not None
    assert bool(announcement.inline) == (size <= limits.announcement - ENVELOPE_OVERHEAD - len(encode(BOUND.statement)))


def test_the_host_proves_the_same_key() -> None:
    """What libp2p signs with the identity, anybody verifies with the public key that the peer id is the hash of."""
    keys = _key_pair(OLD)
    assert keys.public_key.serialize() == OLD.public_key
    public = serialization.load_der_public_key(OLD.public_key[5:])
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(keys.private_key.sign(b"said"), b"said", padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3)])
def test_no_stranger_chooses_how_long_his_key_takes(bits: int, exponent: int) -> None:
    """In handshakes and messages, too, RSA keys have the bounds of identities."""
    assert isinstance(bounded_rsa(OLD.public_key[5:]), RSAPublicKey)
    public = rsa.generate_private_key(exponent, bits).public_key()
    with pytest.raises(ValueError, match="an RSA key of"):
        bounded_rsa(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
