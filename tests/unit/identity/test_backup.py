"""Backups: one encrypted file."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.exits import Exit, Refusal
from node.identity.backup import MOST_WORK, BackedUpIdentity, head_of, seal, unseal
from node.identity.secret import Secret

PASSPHRASE = Secret(b"open sesame")
IDENTITY = BackedUpIdentity("0x" + "12" * 20, 1_700_000_000.0, b"the key's PEM", b"rsa", b"delegation", b"votes")
WORK = 2
SEALED = seal(IDENTITY, PASSPHRASE, WORK)


def test_what_is_sealed_comes_back() -> None:
    """With the passphrase everything is there; without it the node's address is, and nothing else."""
    assert unseal(SEALED, PASSPHRASE) == IDENTITY
    assert head_of(SEALED).node == IDENTITY.node
    assert IDENTITY.key not in SEALED
    assert seal(IDENTITY, PASSPHRASE, WORK) != SEALED
    assert "PEM" not in repr(IDENTITY)


def test_a_wrong_passphrase_is_told() -> None:
    """It is a code of its own, since it is worth another try."""
    with pytest.raises(Refusal, match="wrong passphrase") as refused:
        unseal(SEALED, Secret(b"open barley"))
    assert refused.value.code is Exit.SECRET


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, by: int) -> None:
    """Whichever byte of the file is another one, the first line included, nothing of it is taken."""
    changed = SEALED[:place] + bytes([SEALED[place] ^ by]) + SEALED[place + 1 :]
    with pytest.raises(Refusal):
        unseal(changed, PASSPHRASE)


def test_a_file_can_not_ask_for_endless_work() -> None:
    """A scrypt parameter beyond bounds is refused before any work is done; so is a newer version."""
    line, _, rest = SEALED.partition(b"\n")
    for field, value in (("n", MOST_WORK * 2), ("version", 2)):
        head = msgspec.json.encode(msgspec.json.decode(line) | {field: value})
        with pytest.raises(Refusal) as refused:
            unseal(head + b"\n" + rest, PASSPHRASE)
        assert refused.value.code is Exit.BACKUP
