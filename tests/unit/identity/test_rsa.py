"""RSA identities of RL Swarm."""

from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.peer.id import ID
from msgspec.structs import replace

from node.identity import IdentityError
from node.identity.rsa import FILE, RsaIdentity, bound_peer, load_rsa, write_statement
from protocols.session import SessionStatement
from protocols.typed_data import Domain
from tests.support.rsa_keys import stored

DOMAIN = Domain(1, "0x" + "c0" * 20, b"s" * 32)
SESSION = "0x" + "12" * 20


@cache
def identity() -> RsaIdentity:
    return RsaIdentity(stored())


def test_peer_id_and_key_are_those_of_libp2p() -> None:
    """libp2p reads the public key that the statement carries, and computes the same peer id (Qm...)."""
    public = deserialize_public_key(identity().public_key)
    assert identity().peer_id == str(ID.from_pubkey(public))
    assert identity().peer_id.startswith("Qm")


def test_a_statement_binds_one_session_at_one_deployment() -> None:
    """It names the peer for this session, chain, contract and salt, and for no other; it is the same every time."""
    statement = identity().bind(DOMAIN, SESSION)
    assert bound_peer(statement, DOMAIN, SESSION) == identity().peer_id
    assert identity().bind(DOMAIN, SESSION) == statement
    others = [replace(DOMAIN, chain_id=2), replace(DOMAIN, contract="0x" + "c1" * 20), replace(DOMAIN, salt=bytes(32))]
    for domain, session in [(other, SESSION) for other in others] + [(DOMAIN, "0x" + "13" * 20)]:
        with pytest.raises(ValueError, match="did not sign"):
            bound_peer(statement, domain, session)


@given(st.binary(max_size=700), st.binary(max_size=600))
def test_what_strangers_send_is_a_value_error(key: bytes, signature: bytes) -> None:
    """Junk for key or signature raises ValueError and nothing else."""
    for statement in (SessionStatement(key, signature), SessionStatement(identity().public_key, signature)):
        with pytest.raises(ValueError):
            bound_peer(statement, DOMAIN, SESSION)


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3)])
def test_keys_out_of_bounds_are_refused(bits: int, exponent: int) -> None:
    """Neither an own key nor a stranger's may be weak, or costly to check."""
    with pytest.raises(ValueError, match="are taken"):
        RsaIdentity(stored(bits, exponent))
    public = rsa.generate_private_key(exponent, bits).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    length = bytes([len(der)]) if len(der) < 128 else bytes([len(der) & 0x7F | 0x80, len(der) >> 7])
    with pytest.raises(ValueError, match="are taken"):
        bound_peer(SessionStatement(b"\x08\x00\x12" + length + der, b"x"), DOMAIN, SESSION)


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x02\x12\x01x", b"\x08\x00\x12\x05abc", b"\x08\x00\x12\xff\xff\xff\xff\x01"]
)
def test_what_is_no_key_of_rl_swarm_is_refused(content: bytes) -> None:
    """Another kind of key, a wrong length, or nothing at all is a ValueError."""
    with pytest.raises(ValueError):
        RsaIdentity(content)


def test_the_file_is_checked(tmp_path: Path) -> None:
    """None where there is none; refused where others may read it or it is damaged; the statement stands beside it."""
    assert load_rsa(tmp_path) is None
    path = tmp_path / FILE
    path.write_bytes(identity().stored)
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_rsa(tmp_path)
    path.chmod(0o600)
    loaded = load_rsa(tmp_path)
    assert loaded is not None
    assert loaded.peer_id == identity().peer_id
    write_statement(tmp_path, loaded, DOMAIN, SESSION)
    assert identity().peer_id in (tmp_path / "session.json").read_text()
    path.write_bytes(b"\x08\x00")
    with pytest.raises(IdentityError, match="import it again"):
        load_rsa(tmp_path)
