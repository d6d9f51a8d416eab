import os
from pathlib import Path

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.peer.id import ID

from node.identity import (
    IdentityError,
    NodeKey,
    base58,
    load_or_create,
    name_of,
    peer_id_of_public_key,
    public_key_of_peer_id,
    recover,
)

SECRET = bytes([1]) * 32


def test_addresses_are_those_of_other_implementations() -> None:
    """Peer id and EVM address are the ones that libp2p and eth-account compute for the same secret."""
    key = NodeKey(SECRET)
    assert key.peer_id == str(ID.from_pubkey(create_new_key_pair(SECRET).public_key))
    assert key.address == Account.from_key(SECRET).address.lower()


@given(st.binary(min_size=32, max_size=32))
def test_a_signature_gives_its_signer_back(digest: bytes) -> None:
    """Whoever has hash and signature learns the signer's address, public key and peer id."""
    key = NodeKey(SECRET)
    signature = key.sign(digest)
    address, public = recover(digest, signature)
    assert (len(signature), signature[64] in (0, 1)) == (65, True)
    assert (address, public, peer_id_of_public_key(public)) == (key.address, key.public_key, key.peer_id)
    assert key.sign(digest) == signature


@given(st.binary(max_size=80))
def test_what_is_no_signature_is_a_value_error(junk: bytes) -> None:
    """Recovery from junk either names some other signer or raises ValueError, nothing else."""
    try:
        address, _ = recover(bytes(32), junk)
    except ValueError:
        return
    assert address != NodeKey(SECRET).address


@given(st.binary(max_size=40))
def test_base58_is_reversible(data: bytes) -> None:
    """Decoding undoes encoding, leading zeros included."""
    assert base58.decode(base58.encode(data)) == data


@pytest.mark.parametrize("text", ["1I", "1 ", " 1", "1\n", "é", "0"])
def test_base58_has_one_spelling(text: str) -> None:
    """No other letter, and no white space before or after: a peer has one id."""
    with pytest.raises(ValueError, match=r"\S"):
        base58.decode(text)


def test_the_public_key_is_inside_the_peer_id() -> None:
    """A secp256k1 peer id gives its public key back; an RSA one and junk are refused."""
    key = NodeKey(SECRET)
    assert public_key_of_peer_id(key.peer_id) == key.public_key
    for other in ("QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA", "0OIl", ""):
        with pytest.raises(ValueError):
            public_key_of_peer_id(other)


def test_the_secret_is_never_shown() -> None:
    """repr and str of a key hold its address and nothing of the secret."""
    key = NodeKey(SECRET)
    assert SECRET.hex() not in repr(key) + str(key)
    assert key.address in repr(key)


def test_a_key_is_created_once(tmp_path: Path) -> None:
    """The first start writes a PEM of mode 0600, the next one reads the same key, no draft stays behind."""
    path = tmp_path / "data" / "swarm.pem"
    first = load_or_create(path)
    assert load_or_create(path).secret == first.secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert os.listdir(path.parent) == ["swarm.pem"]


def test_a_file_that_others_read_is_refused(tmp_path: Path) -> None:
    """A key file with rights for group or others is refused with the command that repairs it."""
    path = tmp_path / "swarm.pem"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x00\x12 libp2p protobuf", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
)
def test_what_is_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    """A file that is not a key gives one line naming it, and stays as it was."""
    path = tmp_path / "swarm.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=r"swarm\.pem") as caught:
        load_or_create(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("peer_id", "name"),
    [
        ("QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA", "deadly grunting chimpanzee"),
        ("QmVSM5c1Q7opwNGRZGmL7moF6ZLecPkv5vYqZLpoYgyX4S", "trotting long armadillo"),
    ],
)
def test_names_are_those_of_rl_swarm(peer_id: str, name: str) -> None:
    """A peer id has the three words that it had in RL Swarm."""
    assert name_of(peer_id) == name
